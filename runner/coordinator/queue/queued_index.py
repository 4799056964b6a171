"""Pure: queued jobs of which memory holds no more than the number, in lots of jobs that are alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

from gpu.job_class import JobClass
from runner.coordinator.queue.sorted_pairs import SortedPairs
from runner.jobs.job import Job
from runner.jobs.traits import decode_traits
from runner.stores.queued_groups import GroupKey, StoredGroup, group_key, to_millis


class Lot:
    """Jobs of one queue, handler, priority, need and traits. They go in the order of their acceptance."""

    __slots__ = ("armed_at", "cls", "delayed", "key", "ready", "since")

    def __init__(self, key: GroupKey, cls: JobClass | None) -> None:
        self.key = key
        #: Their class in the plan's view; None while their handler is not known. Several lots may have one.
        self.cls = cls
        #: Those behind their class's window.
        self.ready = SortedPairs()
        #: Those that are to start at a moment, by their reason.
        self.delayed: dict[str, SortedPairs] = {}
        #: About since when the first of the ready ones waits (UTC epoch seconds).
        self.since = math.inf
        #: The moment for which a timer is set.
        self.armed_at = math.inf

    @property
    def next_moment(self) -> int | None:
        """When the first of the delayed ones is due."""
        heads = [column.first_pair for column in self.delayed.values()]
        return min((head[0] for head in heads if head is not None), default=None)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is left."""
        return not self.ready and not any(self.delayed.values())


class Lots:
    """All lots, and which of them make up a class."""

    def __init__(self, class_of: Callable[[GroupKey], JobClass | None]) -> None:
        self._class_of = class_of
        self._lots: dict[GroupKey, Lot] = {}
        self._of_class: dict[JobClass, list[Lot]] = {}

    def __iter__(self) -> Iterator[Lot]:
        return iter(self._lots.values())

    def load(self, stored: StoredGroup) -> None:
        """Take in what the store holds of a lot."""
        lot = self._open(stored.key)
        lot.ready = SortedPairs.from_numbers(stored.ready)
        for reason, marks in stored.delayed.items():
            column = lot.delayed[reason] = SortedPairs()
            for at, n in zip(marks.times_ms, marks.numbers, strict=True):
                column.add(at, n)
        if stored.oldest_ready_at is not None:
            lot.since = stored.oldest_ready_at

    def add(self, job: Job) -> Lot:
        """A job whose time has come waits behind the window of its class."""
        lot = self._open(group_key(job))
        lot.ready.add(0, job.number)
        lot.since = min(lot.since, job.ready_at)
        return lot

    def delay(self, job: Job) -> Lot:
        """A job waits for its time."""
        lot = self._open(group_key(job))
        lot.delayed.setdefault(job.reason or "scheduled", SortedPairs()).add(
            to_millis(job.ready_at), job.number
        )
        return lot

    def where(self, job: Job) -> Literal["behind", "delayed"] | None:
        """How a job waits here; None where it does not."""
        lot = self._lots.get(group_key(job))
        if lot is None:
            return None
        if (0, job.number) in lot.ready:
            return "behind"
        pair = (to_millis(job.ready_at), job.number)
        return "delayed" if any(pair in column for column in lot.delayed.values()) else None

    def remove(self, job: Job) -> bool:
        """Take a job out; False where it was not in its lot."""
        lot = self._lots.get(group_key(job))
        if lot is None:
            return False
        at = to_millis(job.ready_at)
        found = lot.ready.discard(0, job.number) or any(
            c.discard(at, job.number) for c in lot.delayed.values()
        )
        self._close(lot)
        return found

    def drop(self, n: int) -> None:
        """Take out a number of which nothing else is known."""
        for lot in list(self._lots.values()):
            if lot.ready.discard(0, n):
                self._close(lot)

    def due(self, lot: Lot, until: int, count: int) -> list[int]:
        """Take out the delayed ones whose moment has come, at most `count` of each reason."""
        taken = [n for column in lot.delayed.values() for n in column.remove_until(until, count)]
        self._close(lot)
        return taken

    def ripen(self, key: GroupKey, n: int) -> Lot:
        """A job that was delayed is ready; memory knows no more of it than this."""
        lot = self._open(key)
        lot.ready.add(0, n)
        return lot

    # Classes.

    def classify(self) -> None:
        """The handlers are known anew: look up every lot's class again."""
        self._of_class.clear()
        for lot in self._lots.values():
            self._join(lot)

    def classes(self) -> list[JobClass]:
        """Those of which somebody is here."""
        return list(self._of_class)

    def count(self, cls: JobClass) -> int:
        """How many of a class are behind its window."""
        return sum(len(lot.ready) for lot in self._of_class.get(cls, ()))

    def count_by_tenant(self) -> Counter[str]:
        """How many jobs of each tenant are here."""
        counts: Counter[str] = Counter()
        for lot in self:
            counts[decode_traits(lot.key.traits).tenant] += len(lot.ready) + sum(
                map(len, lot.delayed.values())
            )
        return counts

    def lowest(self, cls: JobClass, count: int) -> list[int]:
        """The first ones of a class."""
        lots = self._of_class.get(cls, ())
        ns = [n for lot in lots for _, n in lot.ready.first_pairs(count)]
        return ns if len(lots) == 1 else sorted(ns)[:count]

    def take(self, cls: JobClass, ns: list[int], since: float) -> None:
        """Take out these, the first ones of a class; who is left is ready since then at the earliest."""
        lots = list(self._of_class.get(cls, ()))
        for lot in lots:
            if len(lots) == 1:
                lot.ready.remove_until(0, len(ns))
            else:
                for n in ns:
                    lot.ready.discard(0, n)
            lot.since = since
            self._close(lot)

    def _open(self, key: GroupKey) -> Lot:
        lot = self._lots.get(key)
        if lot is None:
            lot = self._lots[key] = Lot(key, None)
            self._join(lot)
        return lot

    def _join(self, lot: Lot) -> None:
        lot.cls = self._class_of(lot.key)
        if lot.cls is not None:
            self._of_class.setdefault(lot.cls, []).append(lot)

    def _close(self, lot: Lot) -> None:
        if not lot.is_empty or self._lots.get(lot.key) is not lot:
            return
        del self._lots[lot.key]
        if lot.cls is not None:
            others = self._of_class[lot.cls]
            others.remove(lot)
            if not others:
                del self._of_class[lot.cls]


def due_until(now: float) -> int:
    """The moment until which all is due at `now` (UTC epoch seconds)."""
    # A little more: a timer for a moment must find that it has come.
    return int(now * 1000 + 0.01)
