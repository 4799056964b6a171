"""Pure: many waiting classes in the order in which a plan would try them, so that it looks at the first only.

A rank changes with time and with the shares of tenants, so an order of many classes is exact when it is made
and made again at intervals that grow with their number. A class that comes, or whose first job changes, is
put into its place before the next plan. The plan itself ranks exactly what it looks at.
"""

from __future__ import annotations

import math
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
#: Seconds between two orderings for each class: about a hundred times what the ordering takes.
REORDER_S_PER_CLASS = 0.0005


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


class ClassOrder:
    """The waiting classes of queues that are not paused, in several orders once there are many of them."""

    def __init__(self, *, exact: int = EXACT_CLASSES, window: int = WINDOW_CLASSES) -> None:
        """Start without classes; up to `exact` of them need no order."""
        self.exact = exact
        self.window = window
        #: The classes that may start, as far as their queue is concerned, in order of arrival.
        self.classes: dict[JobClass, None] = {}
        self._is_kept = False
        self._reorder_at = 0.0
        self._placements: dict[JobClass, Placement] = {}
        #: Classes to place before the next plan.
        self._unplaced: dict[JobClass, None] = {}
        self._by_handler: dict[tuple[bool, str], list[_Entry]] = {}
        self._by_key: dict[Key, list[_Entry]] = {}
        self._by_need: dict[_PoolKey, dict[_NeedKey, list[_Entry]]] = {}
        #: The keys of each dict in `_by_need`, ascending.
        self._needs: dict[_PoolKey, list[_NeedKey]] = {}

    @property
    def is_small(self) -> bool:
        """Whether a plan looks at all classes."""
        return len(self.classes) <= self.exact

    def add(self, job_class: JobClass) -> None:
        """Add a class that has a waiting job, or note that its first job has changed."""
        self.classes[job_class] = None
        if self._is_kept:
            self._unplaced[job_class] = None

    def remove(self, job_class: JobClass) -> None:
        """Remove a class without waiting jobs, or of a paused queue."""
        del self.classes[job_class]
        if self._is_kept:
            self._unplaced.pop(job_class, None)
            self._displace(job_class)

    def reorder(self) -> None:
        """Make the order again before the next plan: what ranks depend on has changed for many classes."""
        self._reorder_at = -math.inf

    def refresh(self, now: float, place: Callable[[JobClass], Placement]) -> None:
        """Bring the order up to date for a plan at the time `now`; `place` finds the place of a class."""
        if self.is_small:
            if self._is_kept:
                self._clear()
        elif not self._is_kept or now >= self._reorder_at:
            self._clear()
            self._is_kept = True
            self._reorder_at = now + REORDER_S_PER_CLASS * len(self.classes)
            self._place_all(place)
        else:
            for job_class in self._unplaced:
                self._displace(job_class)
                placement = self._placements[job_class] = place(job_class)
                for entries, sort_key in self._lists_of(job_class, placement):
                    insort(entries, (sort_key, job_class))
            self._unplaced.clear()

    def select(
        self,
        warm_keys: Iterable[Key],
        is_at_limit: Callable[[JobClass], bool],
        could_fit: Callable[[Placement], bool],
    ) -> Selection:
        """Return the classes at which a plan has to look, after `refresh`.

        Those are the first of each pool by rank, the first of each of the `warm_keys`, whose executors may
        take a job, and the first of those needs that a device has free. Handlers at their limit are left out,
        except for the warm keys.
        """
        selection = Selection({}, [])
        for is_gpu in (True, False):
            open_lists = [
                entries
                for (pool, _), entries in self._by_handler.items()
                if pool is is_gpu and not is_at_limit(entries[0][1])
            ]
            _take(selection, merge(*open_lists), self.window)
        for pool_key, needs in self._needs.items():
            _take_fitting(selection, self._fitting(pool_key, needs, is_at_limit, could_fit))
        for key in warm_keys:
            if key in self._by_key:
                _take(selection, iter(self._by_key[key]), self.window)
        return selection

    def _fitting(
        self,
        pool_key: _PoolKey,
        needs: list[_NeedKey],
        is_at_limit: Callable[[JobClass], bool],
        could_fit: Callable[[Placement], bool],
    ) -> Iterator[list[_Entry]]:
        """Yield the classes of each need that could fit, the smallest need first (after an unknown one)."""
        for need_key in needs:
            entries = self._by_need[pool_key][need_key]
            first = entries[0][1]
            if is_at_limit(first):
                continue
            if could_fit(self._placements[first]):
                yield entries
            elif need_key[0] >= 0:
                return

    def _place_all(self, place: Callable[[JobClass], Placement]) -> None:
        lists: dict[int, list[_Entry]] = {}
        for job_class in self.classes:
            placement = self._placements[job_class] = place(job_class)
            for entries, sort_key in self._lists_of(job_class, placement):
                entries.append((sort_key, job_class))
                lists[id(entries)] = entries
        for entries in lists.values():
            entries.sort()

    def _lists_of(
        self, job_class: JobClass, placement: Placement
    ) -> Iterator[tuple[list[_Entry], tuple[Any, ...]]]:
        """Yield the lists in which a class belongs, with its sort key there."""
        yield self._by_handler.setdefault((placement.is_gpu, job_class.handler), []), placement.rank
        yield self._by_key.setdefault(job_class.key, []), placement.rank
        pool_key, need_key = _need_keys(job_class, placement)
        by_need = self._by_need.setdefault(pool_key, {})
        if need_key not in by_need:
            by_need[need_key] = []
            insort(self._needs.setdefault(pool_key, []), need_key)
        yield by_need[need_key], placement.backfill_rank

    def _displace(self, job_class: JobClass) -> None:
        """Remove a class from the lists in which it is placed, and lists that become empty."""
        placement = self._placements.pop(job_class, None)
        if placement is None:
            return
        handler, (pool_key, need_key) = (
            (placement.is_gpu, job_class.handler),
            _need_keys(job_class, placement),
        )
        if not _remove(self._by_handler[handler], placement.rank):
            del self._by_handler[handler]
        if not _remove(self._by_key[job_class.key], placement.rank):
            del self._by_key[job_class.key]
        if not _remove(self._by_need[pool_key][need_key], placement.backfill_rank):
            del self._by_need[pool_key][need_key]
            del self._needs[pool_key][bisect_left(self._needs[pool_key], need_key)]

    def _clear(self) -> None:
        self._is_kept = False
        self._placements.clear()
        self._unplaced.clear()
        self._by_handler.clear()
        self._by_key.clear()
        self._by_need.clear()
        self._needs.clear()


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
