"""Pure: the queued jobs of a store as numbers, in lots of jobs that differ in nothing a plan looks at."""

from __future__ import annotations

import math
from array import array
from typing import NamedTuple

from runner.jobs.job import Job
from runner.jobs.traits import NEUTRAL, encode_traits

#: The last moment, far beyond any calendar; up to here a float holds every whole number.
MOMENT_MAX = 2**53


class LotKey(NamedTuple):
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


def lot_key(job: Job) -> LotKey:
    """The lot that a job belongs to."""
    return LotKey(job.queue, job.handler, job.priority, job.terms.vram_bytes, traits_text(job))


class Marks:
    """Moments and the numbers of the jobs that they are of, side by side."""

    __slots__ = ("moments", "ns")

    def __init__(self) -> None:
        self.moments: array[int] = array("q")
        self.ns: array[int] = array("q")

    def add(self, at: int, n: int) -> None:
        """One more."""
        self.moments.append(at)
        self.ns.append(n)


class QueuedLot:
    """All queued jobs of one lot, as they stand in the store."""

    __slots__ = ("delayed", "key", "limits", "oldest", "ready")

    def __init__(self, key: LotKey) -> None:
        self.key = key
        #: Those whose time has come, in no certain order.
        self.ready: array[int] = array("q")
        #: Those that are to start later, by their reason, with the moment.
        self.delayed: dict[str, Marks] = {}
        #: Those that have to start by a moment.
        self.limits = Marks()
        #: Since when the one waits that waits longest (UTC epoch seconds); None: all are delayed.
        self.oldest: float | None = None

    def add(self, n: int, ready: int, start_by: int, reason: str) -> None:
        """One job; moments as `moment` makes them, 0 where there is none."""
        if ready:
            self.delayed.setdefault(reason or "scheduled", Marks()).add(ready, n)
        else:
            self.ready.append(n)
        if start_by:
            self.limits.add(start_by, n)

    def waits_since(self, at: float) -> None:
        """A job of it is ready since `at`."""
        self.oldest = at if self.oldest is None else min(self.oldest, at)


def moment(at: float) -> int:
    """UTC epoch seconds in whole milliseconds, rounded up, from 0 to MOMENT_MAX; SQL reckons the same way."""
    # In this order NaN becomes 0.
    return math.ceil(min(max(0.0, at * 1000), MOMENT_MAX))
