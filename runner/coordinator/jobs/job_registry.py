"""Effect: the live jobs in memory: every job that has not ended, or whose end is not durable yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

from gpu.job_class import JobClass
from runner.coordinator.jobs.usage_meter import Meter
from runner.jobs.job import Job, State

#: behind: those of its class in the plan's view go first, or its handler is not there; delayed: until
#: `ready_at`; asleep: one of these two that memory has let go of; waiting: in the plan's view;
#: assigned: promised to an executor, its worker not told yet (input or commit under way);
#: staged: handed to a busy executor, not started; starting: the attempt is on its way or loading;
#: running: user code runs; ended: terminal, until its commit.
Where = Literal[
    "behind", "delayed", "asleep", "waiting", "assigned", "staged", "starting", "running", "ended"
]


class Live:
    """A job that is under way."""

    __slots__ = (
        "cls",
        "executor",
        "flight",
        "input",
        "job",
        "metered",
        "output",
        "spare",
        "start_before",
        "waiters",
        "where",
    )

    def __init__(self, job: Job, input_: bytes | None, where: Where) -> None:
        self.job = job
        #: JSON text; None where it has to be read from the store.
        self.input = input_
        #: JSON text, from the end of the job until its commit.
        self.output: bytes | None = None
        self.where = where
        #: Its class in the plan's view; None until its handler is known.
        self.cls: JobClass | None = None
        #: The executor that holds the attempt in flight.
        self.executor: int | None = None
        #: The attempt in flight; 0: none. A staged one is not yet counted in `job.attempt`.
        self.flight = 0
        #: `job.attempt` was counted ahead and never started: the next start takes this number.
        self.spare = False
        #: `job.started_at` before that attempt was counted, should it turn out that it never started.
        self.start_before: float | None = None
        #: While an attempt that occupies devices is under way: its executor's meter, and what that told.
        self.metered: tuple[Meter, float] | None = None
        #: Called once after the commit that holds the job's end.
        self.waiters: list[Callable[[Live], None]] | None = None


class Book:
    """Live jobs by id and by number, and how many jobs of each queue are in each state."""

    def __init__(self, last_n: int, counts: dict[tuple[str, str], int]) -> None:
        self._last_n = last_n
        self.by_id: dict[str, Live] = {}
        self.by_n: dict[int, Live] = {}
        #: (queue, state) -> jobs, ended ones in the store included.
        self.counts: Counter[tuple[str, str]] = Counter(counts)
        #: Queue -> the most of its jobs that ran at once since the start.
        self.peak_running: Counter[str] = Counter()
        #: Jobs of all queues that wait.
        self.queued = sum(count for (_, state), count in counts.items() if state == "queued")

    def next_n(self) -> int:
        """The number of the next job."""
        self._last_n += 1
        return self._last_n

    def __len__(self) -> int:
        return len(self.by_n)

    def __iter__(self) -> Iterator[Live]:
        return iter(self.by_n.values())

    def add(self, live: Live, *, counted: bool = False) -> None:
        """Take in a live job; `counted` where the store's counts hold it already."""
        job = live.job
        self.by_id[job.id] = live
        self.by_n[job.number] = live
        if not counted:
            self.counts[job.queue, job.state] += 1
            self.queued += job.state == "queued"

    def state(self, job: Job, state: State) -> None:
        """Change a job's state; the counts follow."""
        self.counts[job.queue, job.state] -= 1
        self.counts[job.queue, state] += 1
        self.queued += (state == "queued") - (job.state == "queued")
        job.state = state
        if state == "running":
            running = self.counts[job.queue, "running"]
            if running > self.peak_running[job.queue]:
                self.peak_running[job.queue] = running

    def forget(self, live: Live) -> None:
        """The job's end is durable: from now on it is read from the store."""
        self.by_id.pop(live.job.id, None)
        self.by_n.pop(live.job.number, None)

    def discount(self, job: Job) -> None:
        """This job of the store was deleted, or is about to be added as a live one again."""
        self.counts[job.queue, job.state] -= 1
        self.queued -= job.state == "queued"
