"""Pure: the queued jobs of a store as numbers, in lots of jobs that differ in nothing a plan looks at."""

from __future__ import annotations

import math
from array import array
from typing import NamedTuple

from runner.jobs.job import Job
from runner.jobs.traits import NEUTRAL, encode_traits

#: The last moment, far beyond any calendar; up to here a float holds every whole number.
MILLIS_MAX = 2**53


class GroupKey(NamedTuple):
    """What jobs of one lot have in common."""

    queue: str
    handler: str
    priority: int
    #: As the job's terms have it.
    vram_bytes: int | None
    #: As `traits.text_of` has it.
    traits: str = NEUTRAL


def traits_text(job: Job) -> str:
    """The job's traits, as they stand in the store beside it."""
    terms = job.terms
    return encode_traits(terms.tenant, terms.model, terms.size, terms.group, terms.timeout_s)


def group_key(job: Job) -> GroupKey:
    """The lot that a job belongs to."""
    return GroupKey(job.queue, job.handler, job.priority, job.terms.vram_bytes, traits_text(job))


class DueTimes:
    """Moments and the numbers of the jobs that they are of, side by side."""

    __slots__ = ("numbers", "times_ms")

    def __init__(self) -> None:
        self.times_ms: array[int] = array("q")
        self.numbers: array[int] = array("q")

    def add(self, time_ms: int, number: int) -> None:
        """One more."""
        self.times_ms.append(time_ms)
        self.numbers.append(number)


class StoredGroup:
    """All queued jobs of one lot, as they stand in the store."""

    __slots__ = ("delayed", "key", "oldest_ready_at", "ready", "start_deadlines")

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        #: Those whose time has come, in no certain order.
        self.ready: array[int] = array("q")
        #: Those that are to start later, by their reason, with the moment.
        self.delayed: dict[str, DueTimes] = {}
        #: Those that have to start by a moment.
        self.start_deadlines = DueTimes()
        #: Since when the one waits that waits longest (UTC epoch seconds); None: all are delayed.
        self.oldest_ready_at: float | None = None

    def add(self, number: int, ready_at_ms: int, start_by_ms: int, reason: str) -> None:
        """One job; moments as `moment` makes them, 0 where there is none."""
        if ready_at_ms:
            self.delayed.setdefault(reason or "scheduled", DueTimes()).add(ready_at_ms, number)
        else:
            self.ready.append(number)
        if start_by_ms:
            self.start_deadlines.add(start_by_ms, number)

    def add_ready_time(self, at: float) -> None:
        """A job of it is ready since `at`."""
        self.oldest_ready_at = at if self.oldest_ready_at is None else min(self.oldest_ready_at, at)


def to_millis(at: float) -> int:
    """UTC epoch seconds in whole milliseconds, rounded up, from 0 to MOMENT_MAX; SQL reckons the same way."""
    # In this order NaN becomes 0.
    return math.ceil(min(max(0.0, at * 1000), MILLIS_MAX))
