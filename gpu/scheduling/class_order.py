"""Pure: many waiting classes in the order in which a plan would try them, so that it looks at the first only.

A rank changes with time and with the shares of tenants, so an order of many classes holds for the time for
which it is made, and is made again at intervals that grow with their number, a few classes in each plan. A
class that comes, or whose first job changes, is put into its place before the next plan. The plan itself
ranks exactly what it looks at.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any

from gpu.job_class import JobClass, Key

#: Up to this many waiting classes, a plan looks at all of them.
EXACT_CLASSES = 32
#: How many classes of each list a plan looks at where more wait.
WINDOW_CLASSES = 8
#: The same for classes with equal needs that fit behind the first ones, and the number of such needs.
FITTING_CLASSES, FITTING_NEEDS = 4, 8
#: Seconds from one order to the beginning of the next for each class, and seconds in which the next one
#: advances by a class: about ten times what placing a class takes.
REORDER_S_PER_CLASS = 0.0005
#: Plans that follow one another place at most this many classes each for the next order.
PLACED_PER_PLAN = 256
#: How many windows of classes are moved at most in one plan because their tenants were charged.
SETTLE_ROUNDS = 4
#: An order older than this many intervals, since hardly any plan was made, is made again at once.
AGE_MAX_INTERVALS = 4


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a class stands: how it ranks, and what a new executor of it takes."""

    #: Sort keys: by rank, and among jobs that start beside a reservation. The last element of both
    #: differs for each class.
    rank: tuple[Any, ...]
    backfill_rank: tuple[Any, ...]
    is_gpu: bool
    device_count: int
    #: None where it is unknown.
    need_bytes: int | None


#: Finds the place of a class as of a time.
Place = Callable[[JobClass, float], Placement]
#: A sort key and its class. The keys of a list differ, so that classes are never compared.
_Entry = tuple[tuple[Any, ...], JobClass]
_sort_key = itemgetter(0)
#: Whether it is the GPU pool, and devices at once.
_PoolKey = tuple[bool, int]
#: Bytes (-1: unknown) and handler.
_NeedKey = tuple[int, str]


@dataclass(slots=True)
class Selection:
    """The classes at which one plan looks."""

    classes: dict[JobClass, None]
    #: Lists of which more wait than were selected: if the plan starts all of one, another plan must follow.
    cut_lists: list[list[JobClass]]


class _RankedClasses:
    """Classes in several orders, ranked as of one time."""

    def __init__(self, as_of: float) -> None:
        """Start without classes; `as_of` is the time for which all are ranked, so that ranks compare."""
        self.as_of = as_of
        self.placements: dict[JobClass, Placement] = {}
        self.by_handler: dict[tuple[bool, str], list[_Entry]] = {}
        self.by_key: dict[Key, list[_Entry]] = {}
        self.by_need: dict[_PoolKey, dict[_NeedKey, list[_Entry]]] = {}
        #: The keys of each dict in `by_need`, ascending.
        self.needs: dict[_PoolKey, list[_NeedKey]] = {}

    def place_all(self, job_classes: Iterable[JobClass], place: Place) -> None:
        """Place classes in orders that are empty."""
        lists: dict[int, list[_Entry]] = {}
        for job_class in job_classes:
            placement = self.placements[job_class] = place(job_class, self.as_of)
            for entries, sort_key in self._lists_of(job_class, placement):
                entries.append((sort_key, job_class))
                lists[id(entries)] = entries
        for entries in lists.values():
            entries.sort()

    def place(self, job_class: JobClass, place: Place) -> None:
        """Place a class, or move it to the place that it has now."""
        self.displace(job_class)
        placement = self.placements[job_class] = place(job_class, self.as_of)
        for entries, sort_key in self._lists_of(job_class, placement):
            insort(entries, (sort_key, job_class))

    def displace(self, job_class: JobClass) -> None:
        """Remove a class from the orders, if it is there, and lists that become empty."""
        placement = self.placements.pop(job_class, None)
        if placement is None:
            return
        handler, (pool_key, need_key) = (
            (placement.is_gpu, job_class.handler),
            _need_keys(job_class, placement),
        )
        if not _remove(self.by_handler[handler], placement.rank):
            del self.by_handler[handler]
        if not _remove(self.by_key[job_class.key], placement.rank):
            del self.by_key[job_class.key]
        if not _remove(self.by_need[pool_key][need_key], placement.backfill_rank):
            del self.by_need[pool_key][need_key]
            del self.needs[pool_key][bisect_left(self.needs[pool_key], need_key)]

    def _lists_of(
        self, job_class: JobClass, placement: Placement
    ) -> Iterator[tuple[list[_Entry], tuple[Any, ...]]]:
        """Yield the lists in which a class belongs, with its sort key there."""
        yield self.by_handler.setdefault((placement.is_gpu, job_class.handler), []), placement.rank
        yield self.by_key.setdefault(job_class.key, []), placement.rank
        pool_key, need_key = _need_keys(job_class, placement)
        by_need = self.by_need.setdefault(pool_key, {})
        if need_key not in by_need:
            by_need[need_key] = []
            insort(self.needs.setdefault(pool_key, []), need_key)
        yield by_need[need_key], placement.backfill_rank


class ClassOrder:
    """The waiting classes of queues that are not paused, in several orders once there are many of them.

    While plans use one order, they make the next one bit by bit, so that no plan ranks all classes.
    """

    def __init__(self, *, exact: int = EXACT_CLASSES, window: int = WINDOW_CLASSES) -> None:
        """Start without classes; up to `exact` of them need no order."""
        self.exact = exact
        self.window = window
        #: The classes that may start, as far as their queue is concerned, in order of arrival.
        self.classes: dict[JobClass, None] = {}
        #: None while no order is needed, or all of it is to be made again.
        self._ranked: _RankedClasses | None = None
        #: Classes to place before the next plan.
        self._unplaced: dict[JobClass, None] = {}
        #: The next order as far as it is made, and the classes that it lacks, in reverse.
        self._next: _RankedClasses | None = None
        self._remaining: list[JobClass] = []
        #: The time when the next order is begun; once it is, the time up to which work on it was done.
        self._next_at = 0.0

    @property
    def is_small(self) -> bool:
        """Whether a plan looks at all classes."""
        return len(self.classes) <= self.exact

    def add(self, job_class: JobClass) -> None:
        """Add a class that has a waiting job, or note that its first job has changed."""
        self.classes[job_class] = None
        if self._ranked is not None:
            self._unplaced[job_class] = None

    def remove(self, job_class: JobClass) -> None:
        """Remove a class without waiting jobs, or of a paused queue."""
        del self.classes[job_class]
        if self._ranked is not None:
            self._unplaced.pop(job_class, None)
            self._ranked.displace(job_class)
        if self._next is not None:
            self._next.displace(job_class)

    def reorder(self) -> None:
        """Make the order again before the next plan: what ranks depend on has changed for many classes."""
        self._ranked = self._next = None
        self._unplaced.clear()
        self._remaining.clear()

    def refresh(self, now: float, place: Place) -> None:
        """Bring the order up to date for a plan at the time `now`; `place` finds the place of a class.

        Places what has changed and at most `PLACED_PER_PLAN` other classes; all of them only where the last
        plans are so long ago that the order is old.
        """
        interval_s = REORDER_S_PER_CLASS * len(self.classes)
        if self.is_small:
            self.reorder()
        elif self._ranked is None or now >= self._ranked.as_of + AGE_MAX_INTERVALS * interval_s:
            self.reorder()
            self._ranked = _RankedClasses(now)
            self._ranked.place_all(self.classes, place)
            self._next_at = now + interval_s
        else:
            for job_class in self._unplaced:
                self._ranked.place(job_class, place)
                if self._next is not None:
                    self._next.place(job_class, place)
            self._unplaced.clear()
            self._continue_next(now, place)

    def _continue_next(self, now: float, place: Place) -> None:
        """Place as many classes in the next order as the time since the last plan allows, and use it when it
        is complete."""
        if self._next is None:
            if now < self._next_at:
                return
            self._next, self._next_at = _RankedClasses(now), now
            self._remaining = list(reversed(self.classes))
        count = int((now - self._next_at) / REORDER_S_PER_CLASS)
        self._next_at = now if count > PLACED_PER_PLAN else self._next_at + count * REORDER_S_PER_CLASS
        for _ in range(min(count, PLACED_PER_PLAN, len(self._remaining))):
            job_class = self._remaining.pop()
            # One that has changed meanwhile is placed already.
            if job_class in self.classes and job_class not in self._next.placements:
                self._next.place(job_class, place)
        if not self._remaining:
            self._ranked, self._next = self._next, None
            self._next_at = now + REORDER_S_PER_CLASS * len(self.classes)

    def settle(
        self,
        is_at_limit: Callable[[JobClass], bool],
        is_current: Callable[[JobClass, Placement], bool],
        place: Place,
    ) -> None:
        """Move the first classes of each pool whose rank has risen since they were placed, after `refresh`.

        Else a tenant with many classes would stay first with all of them until the next order, whatever its
        jobs took meanwhile. At most `SETTLE_ROUNDS` windows of each pool are examined.
        """
        ranked = self._ranked
        if ranked is None:
            return
        for is_gpu in (True, False):
            for _ in range(SETTLE_ROUNDS):
                first = islice(merge(*_open_lists(ranked, is_gpu, is_at_limit)), self.window)
                outdated = [each for _, each in first if not is_current(each, ranked.placements[each])]
                for job_class in outdated:
                    ranked.place(job_class, place)
                if not outdated:
                    break

    def select(
        self,
        warm_keys: Iterable[Key],
        is_at_limit: Callable[[JobClass], bool],
        could_fit: Callable[[Placement], bool],
    ) -> Selection:
        """Return the classes at which a plan has to look, after `refresh`.

        Those are the first of each pool by rank, the first of each of the `warm_keys`, whose executors may
        take a job, and the first of those needs that a device has free. Handlers at their limit are left out,
        except for the warm keys. None of them where `is_small`.
        """
        selection, ranked = Selection({}, []), self._ranked
        if ranked is None:
            return selection
        for is_gpu in (True, False):
            _take(selection, merge(*_open_lists(ranked, is_gpu, is_at_limit)), self.window)
        for pool_key in ranked.needs:
            _take_fitting(selection, _fitting(ranked, pool_key, is_at_limit, could_fit))
        for key in warm_keys:
            if key in ranked.by_key:
                _take(selection, iter(ranked.by_key[key]), self.window)
        return selection


def _open_lists(
    ranked: _RankedClasses, is_gpu: bool, is_at_limit: Callable[[JobClass], bool]
) -> list[list[_Entry]]:
    """Return the classes of each handler of a pool that is not at its limit."""
    return [
        entries
        for (pool, _), entries in ranked.by_handler.items()
        if pool is is_gpu and not is_at_limit(entries[0][1])
    ]


def _fitting(
    ranked: _RankedClasses,
    pool_key: _PoolKey,
    is_at_limit: Callable[[JobClass], bool],
    could_fit: Callable[[Placement], bool],
) -> Iterator[list[_Entry]]:
    """Yield the classes of each need that could fit, the smallest need first (after an unknown one)."""
    for need_key in ranked.needs[pool_key]:
        entries = ranked.by_need[pool_key][need_key]
        first = entries[0][1]
        if is_at_limit(first):
            continue
        if could_fit(ranked.placements[first]):
            yield entries
        elif need_key[0] >= 0:
            return


def _need_keys(job_class: JobClass, placement: Placement) -> tuple[_PoolKey, _NeedKey]:
    need = -1 if placement.need_bytes is None else placement.need_bytes
    return (placement.is_gpu, placement.device_count), (need, job_class.handler)


def _remove(entries: list[_Entry], sort_key: tuple[Any, ...]) -> list[_Entry]:
    """Remove the entry with this sort key, and return the list."""
    del entries[bisect_left(entries, sort_key, key=_sort_key)]
    return entries


def _take_fitting(selection: Selection, lists: Iterable[list[_Entry]]) -> None:
    for entries in islice(lists, FITTING_NEEDS):
        _take(selection, iter(entries), FITTING_CLASSES)


def _take(selection: Selection, entries: Iterator[_Entry], count: int) -> None:
    """Select the first entries, and note whether there are more."""
    taken = [job_class for _, job_class in islice(entries, count)]
    selection.classes.update(dict.fromkeys(taken))
    if next(entries, None) is not None:
        selection.cut_lists.append(taken)
