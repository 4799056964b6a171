"""Pure: the queued jobs of a store as job numbers, in groups that the planner treats alike."""

from __future__ import annotations

import math
from array import array
from typing import NamedTuple

from runner.jobs.job import Job
from runner.jobs.traits import NEUTRAL, encode_traits

#: The latest time, beyond any calendar: up to here a float represents every integer.
MILLIS_MAX = 2**53


class GroupKey(NamedTuple):
    """The values that all jobs of one group share."""

    queue: str
    handler: str
    priority: int
    #: As in the terms of the job: None lets the estimate decide.
    vram_bytes: int | None
    #: Text from `traits.encode_traits`.
    traits: str = NEUTRAL


def traits_text(job: Job) -> str:
    """Return the text of the job's traits, which a store keeps in a column of its own."""
    terms = job.terms
    return encode_traits(terms.tenant, terms.model, terms.size, terms.group, terms.timeout_s)


def group_key(job: Job) -> GroupKey:
    """Return the group that a job belongs to."""
    return GroupKey(job.queue, job.handler, job.priority, job.terms.vram_bytes, traits_text(job))


class DueTimes:
    """Pairs of a time and a job number, in parallel arrays: 16 bytes a pair, for hundreds of thousands."""

    __slots__ = ("numbers", "times_ms")

    def __init__(self) -> None:
        self.times_ms: array[int] = array("q")
        self.numbers: array[int] = array("q")

    def add(self, time_ms: int, number: int) -> None:
        """Add one pair."""
        self.times_ms.append(time_ms)
        self.numbers.append(number)


class StoredGroup:
    """The queued jobs of one group."""

    __slots__ = ("delayed", "key", "oldest_ready_at", "ready", "start_deadlines")

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        #: Numbers of the jobs that are ready, in no particular order.
        self.ready: array[int] = array("q")
        #: Reason -> the jobs that become ready later, with the times when they do.
        self.delayed: dict[str, DueTimes] = {}
        #: The jobs that have a latest start, with that time.
        self.start_deadlines = DueTimes()
        #: When the job that has waited longest became ready (UTC epoch seconds); None: all are delayed.
        self.oldest_ready_at: float | None = None

    @property
    def job_count(self) -> int:
        """Return the number of jobs in the group."""
        return len(self.ready) + sum(len(times.numbers) for times in self.delayed.values())

    def add(self, number: int, ready_at_ms: int, start_by_ms: int, reason: str) -> None:
        """Add one job; times as `to_millis` returns them, 0 for none."""
        if ready_at_ms:
            self.delayed.setdefault(reason or "scheduled", DueTimes()).add(ready_at_ms, number)
        else:
            self.ready.append(number)
        if start_by_ms:
            self.start_deadlines.add(start_by_ms, number)

    @property
    def is_empty(self) -> bool:
        """Return whether the group has no job."""
        return not self.ready and not self.delayed

    def add_ready_time(self, at: float) -> None:
        """Record that a job of the group has been ready since `at`, in UTC epoch seconds."""
        self.oldest_ready_at = at if self.oldest_ready_at is None else min(self.oldest_ready_at, at)


def to_millis(at: float) -> int:
    """Return UTC epoch seconds as whole milliseconds, rounded up, from 0 to MILLIS_MAX.

    The statement QUEUED_WITH_TIMES of the SQLite store computes the same.
    """
    # In this order NaN becomes 0.
    return math.ceil(min(max(0.0, at * 1000), MILLIS_MAX))
