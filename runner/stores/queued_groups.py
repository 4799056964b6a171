"""Pure: queued jobs of a store as numbers, in groups of jobs that are equal for the planner."""

from __future__ import annotations

import math
from array import array
from typing import NamedTuple

from runner.jobs.job import Job
from runner.jobs.traits import NEUTRAL, encode_traits

#: The latest time, far beyond any calendar; up to here a float represents every integer.
MILLIS_MAX = 2**53


class GroupKey(NamedTuple):
    """What the jobs of one group have in common."""

    queue: str
    handler: str
    priority: int
    #: As in the job's terms.
    vram_bytes: int | None
    #: Text from `traits.encode_traits`.
    traits: str = NEUTRAL


def traits_text(job: Job) -> str:
    """Return the job's traits as the store has them beside it."""
    terms = job.terms
    return encode_traits(terms.tenant, terms.model, terms.size, terms.group, terms.timeout_s)


def group_key(job: Job) -> GroupKey:
    """Return the group that a job belongs to."""
    return GroupKey(job.queue, job.handler, job.priority, job.terms.vram_bytes, traits_text(job))


class DueTimes:
    """Times and the numbers of their jobs, in parallel arrays."""

    __slots__ = ("numbers", "times_ms")

    def __init__(self) -> None:
        self.times_ms: array[int] = array("q")
        self.numbers: array[int] = array("q")

    def add(self, time_ms: int, number: int) -> None:
        """Add one pair."""
        self.times_ms.append(time_ms)
        self.numbers.append(number)


class StoredGroup:
    """All queued jobs of one group, as the store has them."""

    __slots__ = ("delayed", "key", "oldest_ready_at", "ready", "start_deadlines")

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        #: Jobs that are ready, in no particular order.
        self.ready: array[int] = array("q")
        #: Jobs that become ready later, by their reason, with the time.
        self.delayed: dict[str, DueTimes] = {}
        #: Jobs that have a latest start.
        self.start_deadlines = DueTimes()
        #: When the job that has waited longest became ready (UTC epoch seconds); None: all are delayed.
        self.oldest_ready_at: float | None = None

    def add(self, number: int, ready_at_ms: int, start_by_ms: int, reason: str) -> None:
        """Add one job; times as `to_millis` returns them, 0 for none."""
        if ready_at_ms:
            self.delayed.setdefault(reason or "scheduled", DueTimes()).add(ready_at_ms, number)
        else:
            self.ready.append(number)
        if start_by_ms:
            self.start_deadlines.add(start_by_ms, number)

    def add_ready_time(self, at: float) -> None:
        """Record that a job of the group is ready since `at`."""
        self.oldest_ready_at = at if self.oldest_ready_at is None else min(self.oldest_ready_at, at)


def to_millis(at: float) -> int:
    """Return UTC epoch seconds as whole milliseconds, rounded up, 0 to MILLIS_MAX; SQL computes the same."""
    # In this order NaN becomes 0.
    return math.ceil(min(max(0.0, at * 1000), MILLIS_MAX))
