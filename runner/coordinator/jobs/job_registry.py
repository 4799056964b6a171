"""Effect: the live jobs in memory: every job that has not ended, or whose end is not durable yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

from gpu.job_class import JobClass
from runner.coordinator.jobs.usage_meter import UsageMeter
from runner.jobs.job import Job, State

#: behind: those of its class in the plan's view go first, or its handler is not there; delayed: until
#: `ready_at`; asleep: one of these two that memory has let go of; waiting: in the plan's view;
#: assigned: promised to an executor, its worker not told yet (input or commit under way);
#: staged: handed to a busy executor, not started; starting: the attempt is on its way or loading;
#: running: user code runs; ended: terminal, until its commit.
JobPhase = Literal[
    "behind", "delayed", "spilled", "waiting", "assigned", "staged", "starting", "running", "ended"
]


class LiveJob:
    """A job that is under way."""

    __slots__ = (
        "attempt_in_flight",
        "end_callbacks",
        "executor",
        "has_unused_attempt",
        "input",
        "job",
        "job_class",
        "meter_start",
        "output",
        "phase",
        "previous_started_at",
    )

    def __init__(self, job: Job, input_: bytes | None, phase: JobPhase) -> None:
        self.job = job
        #: JSON text; None where it has to be read from the store.
        self.input = input_
        #: JSON text, from the end of the job until its commit.
        self.output: bytes | None = None
        self.phase = phase
        #: Its class in the plan's view; None until its handler is known.
        self.job_class: JobClass | None = None
        #: The executor that holds the attempt in flight.
        self.executor: int | None = None
        #: The attempt in flight; 0: none. A staged one is not yet counted in `job.attempt`.
        self.attempt_in_flight = 0
        #: `job.attempt` was counted ahead and never started: the next start takes this number.
        self.has_unused_attempt = False
        #: `job.started_at` before that attempt was counted, should it turn out that it never started.
        self.previous_started_at: float | None = None
        #: While an attempt that occupies devices is under way: its executor's meter, and what that told.
        self.meter_start: tuple[UsageMeter, float] | None = None
        #: Called once after the commit that holds the job's end.
        self.end_callbacks: list[Callable[[LiveJob], None]] | None = None


class JobRegistry:
    """Live jobs by id and by number, and how many jobs of each queue are in each state."""

    def __init__(self, last_number: int, counts: dict[tuple[str, str], int]) -> None:
        self._last_number = last_number
        self.by_id: dict[str, LiveJob] = {}
        self.by_number: dict[int, LiveJob] = {}
        #: (queue, state) -> jobs, ended ones in the store included.
        self.counts: Counter[tuple[str, str]] = Counter(counts)
        #: Queue -> the most of its jobs that ran at once since the start.
        self.peak_running: Counter[str] = Counter()
        #: Jobs of all queues that wait.
        self.queued_count = sum(count for (_, state), count in counts.items() if state == "queued")

    def next_number(self) -> int:
        """The number of the next job."""
        self._last_number += 1
        return self._last_number

    def __len__(self) -> int:
        return len(self.by_number)

    def __iter__(self) -> Iterator[LiveJob]:
        return iter(self.by_number.values())

    def add(self, live: LiveJob, *, is_counted: bool = False) -> None:
        """Take in a live job; `counted` where the store's counts hold it already."""
        job = live.job
        self.by_id[job.id] = live
        self.by_number[job.number] = live
        if not is_counted:
            self.counts[job.queue, job.state] += 1
            self.queued_count += job.state == "queued"

    def set_state(self, job: Job, state: State) -> None:
        """Change a job's state; the counts follow."""
        self.counts[job.queue, job.state] -= 1
        self.counts[job.queue, state] += 1
        self.queued_count += (state == "queued") - (job.state == "queued")
        job.state = state
        if state == "running":
            running = self.counts[job.queue, "running"]
            if running > self.peak_running[job.queue]:
                self.peak_running[job.queue] = running

    def remove(self, live: LiveJob) -> None:
        """The job's end is durable: from now on it is read from the store."""
        self.by_id.pop(live.job.id, None)
        self.by_number.pop(live.job.number, None)

    def uncount(self, job: Job) -> None:
        """This job of the store was deleted, or is about to be added as a live one again."""
        self.counts[job.queue, job.state] -= 1
        self.queued_count -= job.state == "queued"
