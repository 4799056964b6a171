"""Effect: the live jobs in memory: every job that has not ended, or whose end is not durable yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

from gpu.job_class import JobClass
from runner.coordinator.jobs.usage_meter import UsageMeter
from runner.jobs.job import Job, State

#: behind: queued behind the window of its class, or without a known handler; delayed: until `ready_at`;
#: spilled: behind or delayed, and not in memory; waiting: in the planner's state; assigned: to an executor,
#: not sent to its worker yet (input or commit under way); staged: sent to a busy executor, not started;
#: starting: the attempt is on its way or loading; running: user code runs; ended: terminal, until its commit.
JobPhase = Literal[
    "behind", "delayed", "spilled", "waiting", "assigned", "staged", "starting", "running", "ended"
]


class LiveJob:
    """A job that has not ended, or whose end is not durable yet."""

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
        #: JSON text; None if it has to be read from the store.
        self.input = input_
        #: JSON text, from the end of the job until its commit.
        self.output: bytes | None = None
        self.phase = phase
        #: Its class in the planner's state; None until its handler is known.
        self.job_class: JobClass | None = None
        #: The executor that holds the attempt in flight.
        self.executor: int | None = None
        #: The attempt in flight; 0: none. A staged one is not yet counted in `job.attempt`.
        self.attempt_in_flight = 0
        #: `job.attempt` was counted ahead and never started: the next start takes this number.
        self.has_unused_attempt = False
        #: `job.started_at` before that attempt was counted, in case the attempt never started.
        self.previous_started_at: float | None = None
        #: While an attempt occupies devices: the meter of its executor, and the meter's reading at the start.
        self.meter_start: tuple[UsageMeter, float] | None = None
        #: Called once, after the commit that holds the job's end.
        self.end_callbacks: list[Callable[[LiveJob], None]] | None = None


class JobRegistry:
    """Live jobs by id and by number, and the number of jobs of each queue in each state."""

    def __init__(self, last_number: int, counts: dict[tuple[str, str], int]) -> None:
        self._last_number = last_number
        self.by_id: dict[str, LiveJob] = {}
        self.by_number: dict[int, LiveJob] = {}
        #: (queue, state) -> number of jobs, with those that have ended in the store.
        self.counts: Counter[tuple[str, str]] = Counter(counts)
        #: Queue -> the largest number of its jobs that ran at once since the start.
        self.peak_running: Counter[str] = Counter()
        #: Queued jobs of all queues.
        self.queued_count = sum(count for (_, state), count in counts.items() if state == "queued")

    def next_number(self) -> int:
        """Return the number of the next job."""
        self._last_number += 1
        return self._last_number

    def __len__(self) -> int:
        return len(self.by_number)

    def __iter__(self) -> Iterator[LiveJob]:
        return iter(self.by_number.values())

    def add(self, live: LiveJob, *, is_counted: bool = False) -> None:
        """Add a live job; `is_counted` if the store's counts include it already."""
        job = live.job
        self.by_id[job.id] = live
        self.by_number[job.number] = live
        if not is_counted:
            self.counts[job.queue, job.state] += 1
            self.queued_count += job.state == "queued"

    def set_state(self, job: Job, state: State) -> None:
        """Change a job's state and the counts."""
        self.counts[job.queue, job.state] -= 1
        self.counts[job.queue, state] += 1
        self.queued_count += (state == "queued") - (job.state == "queued")
        job.state = state
        if state == "running":
            running = self.counts[job.queue, "running"]
            if running > self.peak_running[job.queue]:
                self.peak_running[job.queue] = running

    def remove(self, live: LiveJob) -> None:
        """Remove a job whose end is durable: from now on it is read from the store."""
        self.by_id.pop(live.job.id, None)
        self.by_number.pop(live.job.number, None)

    def uncount(self, job: Job) -> None:
        """Uncount a stored job that was deleted, or is about to be added as a live one again."""
        self.counts[job.queue, job.state] -= 1
        self.queued_count -= job.state == "queued"
