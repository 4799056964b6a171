"""Pure: virtual time: hands jobs to a policy as they come and ends what it began."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

from benchmarks.simulation.job import Job
from benchmarks.simulation.outcome import Outcome


class Begun(NamedTuple):
    """A job that a policy gave to an executor now."""

    job: Job
    executor: int
    devices: tuple[str, ...]
    #: Its executor must load first.
    is_cold: bool


class Policy(Protocol):
    """Decides who starts where. An executor runs one job at a time."""

    def advance(self, now: float) -> None:
        """Time has come to `now`; nothing of that moment has happened yet."""
        ...

    def submit(self, job: Job) -> None:
        """A job waits."""
        ...

    def ended(self, executor: int, job: Job, now: float) -> None:
        """An executor's job ended."""
        ...

    def turn(self, now: float) -> Sequence[Begun]:
        """All that starts now."""
        ...


class Stuck(RuntimeError):
    """Jobs wait, and nothing is left that could let them start."""


def simulate(
    jobs: Sequence[Job], policy: Policy, watch: Callable[[float, Begun], None] | None = None
) -> Outcome:
    """Run jobs, which stand in order of submission, to the end of the last one. At one moment ends
    come first, then submissions, then one turn. `watch` sees every start.

    Raises:
        Stuck: the policy never started some.
    """
    outcome = Outcome()
    ends: list[tuple[float, int, int, Job]] = []
    place, count, started = 0, len(jobs), 0
    while ends or place < count:
        now = ends[0][0] if ends else jobs[place].submit_s
        if place < count:
            now = min(now, jobs[place].submit_s)
        policy.advance(now)
        while ends and ends[0][0] <= now:
            _, _, executor, job = heappop(ends)
            policy.ended(executor, job, now)
        while place < count and jobs[place].submit_s <= now:
            policy.submit(jobs[place])
            outcome.submitted(jobs[place])
            place += 1
        for begun in policy.turn(now):
            if watch is not None:
                watch(now, begun)
            end = outcome.begun(begun.job, now, is_cold=begun.is_cold)
            started += 1
            heappush(ends, (end, started, begun.executor, begun.job))
    if started < count:
        raise Stuck(f"{count - started} of {count} jobs never started")
    return outcome
