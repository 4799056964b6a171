"""Pure: virtual time: hands jobs to a policy as they come and ends what it began."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

from benchmarks.simulation.job import SimulatedJob
from benchmarks.simulation.outcome import Outcome


class StartedJob(NamedTuple):
    """A job that a policy gave to an executor now."""

    job: SimulatedJob
    executor: int
    devices: tuple[str, ...]
    #: Its executor must load first.
    is_cold: bool


class Policy(Protocol):
    """Decides who starts where. An executor runs one job at a time."""

    def advance(self, now: float) -> None:
        """Time has come to `now`; nothing of that moment has happened yet."""
        ...

    def submit(self, job: SimulatedJob) -> None:
        """A job waits."""
        ...

    def on_job_ended(self, executor: int, job: SimulatedJob, now: float) -> None:
        """An executor's job ended."""
        ...

    def start_jobs(self, now: float) -> Sequence[StartedJob]:
        """All that starts now."""
        ...


class JobsNeverStarted(RuntimeError):
    """Jobs wait, and nothing is left that could let them start."""


def simulate(
    jobs: Sequence[SimulatedJob], policy: Policy, watch: Callable[[float, StartedJob], None] | None = None
) -> Outcome:
    """Run jobs, which stand in order of submission, to the end of the last one. At one moment ends
    come first, then submissions, then one turn. `watch` sees every start.

    Raises:
        Stuck: the policy never started some.
    """
    outcome = Outcome()
    ends: list[tuple[float, int, int, SimulatedJob]] = []
    index, count, started = 0, len(jobs), 0
    while ends or index < count:
        now = ends[0][0] if ends else jobs[index].submit_s
        if index < count:
            now = min(now, jobs[index].submit_s)
        policy.advance(now)
        while ends and ends[0][0] <= now:
            _, _, executor, job = heappop(ends)
            policy.on_job_ended(executor, job, now)
        while index < count and jobs[index].submit_s <= now:
            policy.submit(jobs[index])
            outcome.record_submission(jobs[index])
            index += 1
        for started_job in policy.start_jobs(now):
            if watch is not None:
                watch(now, started_job)
            end = outcome.record_start(started_job.job, now, is_cold=started_job.is_cold)
            started += 1
            heappush(ends, (end, started, started_job.executor, started_job.job))
    if started < count:
        raise JobsNeverStarted(f"{count - started} of {count} jobs never started")
    return outcome
