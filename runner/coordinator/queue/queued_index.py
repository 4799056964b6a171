"""Pure: queued jobs kept as numbers only, in groups of jobs that are alike.

A million queued jobs take about 16 MB here. Times are milliseconds of UTC epoch time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Iterator
from typing import Literal

from gpu.job_class import JobClass
from runner.coordinator.queue.sorted_pairs import SortedPairs
from runner.jobs.job import Job
from runner.jobs.traits import decode_traits
from runner.stores.queued_groups import GroupKey, StoredGroup, group_key, to_millis


class QueuedGroup:
    """Jobs of one queue, handler, priority, need and traits, in the order of their acceptance."""

    __slots__ = ("delayed", "job_class", "key", "ready", "ready_since", "timer_due_ms")

    def __init__(self, key: GroupKey, job_class: JobClass | None) -> None:
        self.key = key
        #: Class of the jobs in the planner's state, shared by groups; None while their handler is unknown.
        self.job_class = job_class
        #: Ready jobs behind the window of their class.
        self.ready = SortedPairs()
        #: Jobs with a later start time, by reason.
        self.delayed: dict[str, SortedPairs] = {}
        #: Approximate time since when the first ready job waits (UTC epoch seconds).
        self.ready_since = math.inf
        #: Due time for which a timer is set.
        self.timer_due_ms = math.inf

    @property
    def next_due_ms(self) -> int | None:
        """Due time of the first delayed job; None if no job is delayed."""
        first_pairs = [pairs.first_pair for pairs in self.delayed.values()]
        return min((pair[0] for pair in first_pairs if pair is not None), default=None)

    @property
    def is_empty(self) -> bool:
        """Whether the group holds no job."""
        return not self.ready and not any(self.delayed.values())


class QueuedIndex:
    """All groups, and the groups that make up each class.

    A group exists as long as it holds a job. `class_of` returns the class of a group; None while its handler
    is unknown.
    """

    def __init__(self, class_of: Callable[[GroupKey], JobClass | None]) -> None:
        self._class_of = class_of
        self._groups: dict[GroupKey, QueuedGroup] = {}
        self._groups_by_class: dict[JobClass, list[QueuedGroup]] = {}

    def __iter__(self) -> Iterator[QueuedGroup]:
        return iter(self._groups.values())

    def load_group(self, stored: StoredGroup) -> None:
        """Load a group as the store holds it."""
        group = self._get_or_create(stored.key)
        group.ready = SortedPairs.from_numbers(stored.ready)
        for reason, due_times in stored.delayed.items():
            pairs = group.delayed[reason] = SortedPairs()
            for at, number in zip(due_times.times_ms, due_times.numbers, strict=True):
                pairs.add(at, number)
        if stored.oldest_ready_at is not None:
            group.ready_since = stored.oldest_ready_at

    def add_ready(self, job: Job) -> QueuedGroup:
        """Add a job whose start time has come, behind the window of its class."""
        group = self._get_or_create(group_key(job))
        group.ready.add(0, job.number)
        group.ready_since = min(group.ready_since, job.ready_at)
        return group

    def add_delayed(self, job: Job) -> QueuedGroup:
        """Add a job that waits for its start time, `ready_at`; return its group, whose timer may be late."""
        group = self._get_or_create(group_key(job))
        group.delayed.setdefault(job.reason or "scheduled", SortedPairs()).add(
            to_millis(job.ready_at), job.number
        )
        return group

    def phase_of(self, job: Job) -> Literal["behind", "delayed"] | None:
        """How a job waits here; None if it does not."""
        group = self._groups.get(group_key(job))
        if group is None:
            return None
        if (0, job.number) in group.ready:
            return "behind"
        pair = (to_millis(job.ready_at), job.number)
        return "delayed" if any(pair in pairs for pairs in group.delayed.values()) else None

    def remove(self, job: Job) -> bool:
        """Remove a job; False if its group does not hold it."""
        group = self._groups.get(group_key(job))
        if group is None:
            return False
        at = to_millis(job.ready_at)
        found = group.ready.discard(0, job.number) or any(
            c.discard(at, job.number) for c in group.delayed.values()
        )
        self._remove_if_empty(group)
        return found

    def discard_number(self, number: int) -> bool:
        """Remove a job of which only the number is known; False if no group holds it."""
        for group in list(self._groups.values()):
            found = group.ready.discard(0, number) or any(
                pairs.discard_number(number) for pairs in group.delayed.values()
            )
            if found:
                self._remove_if_empty(group)
                return True
        return False

    def take_due(self, group: QueuedGroup, until_ms: int, count: int) -> list[int]:
        """Remove and return the delayed jobs that are due, at most `count` of each reason."""
        taken = [number for pairs in group.delayed.values() for number in pairs.remove_until(until_ms, count)]
        self._remove_if_empty(group)
        return taken

    def make_ready(self, key: GroupKey, number: int) -> QueuedGroup:
        """Make a delayed job ready; memory knows no more of it than its key and number."""
        group = self._get_or_create(key)
        group.ready.add(0, number)
        return group

    # Classes.

    def reclassify(self, handlers: Container[str]) -> None:
        """Look up the classes of the groups of these handlers, which have changed."""
        for job_class in self.classes():
            if job_class.handler in handlers:
                del self._groups_by_class[job_class]
        for group in self._groups.values():
            if group.key.handler in handlers:
                self._add_to_class(group)

    def classes(self) -> list[JobClass]:
        """The classes that have a job here."""
        return list(self._groups_by_class)

    def count_ready(self, job_class: JobClass) -> int:
        """Count the jobs of a class that are behind its window."""
        return sum(len(group.ready) for group in self._groups_by_class.get(job_class, ()))

    def count_by_tenant(self) -> Counter[str]:
        """Count the jobs of each tenant."""
        counts: Counter[str] = Counter()
        for group in self:
            counts[decode_traits(group.key.traits).tenant] += len(group.ready) + sum(
                map(len, group.delayed.values())
            )
        return counts

    def first_numbers(self, job_class: JobClass, count: int) -> list[int]:
        """Return the numbers of the first jobs of a class."""
        groups = self._groups_by_class.get(job_class, ())
        numbers = [number for group in groups for _, number in group.ready.first_pairs(count)]
        return numbers if len(groups) == 1 else sorted(numbers)[:count]

    def remove_first(self, job_class: JobClass, numbers: list[int], since: float) -> None:
        """Remove the first jobs of a class, which `first_numbers` has returned.

        Those that stay have been ready since `since` (UTC epoch seconds) at the earliest.
        """
        groups = list(self._groups_by_class.get(job_class, ()))
        for group in groups:
            if len(groups) == 1:
                group.ready.remove_until(0, len(numbers))
            else:
                for number in numbers:
                    group.ready.discard(0, number)
            group.ready_since = since
            self._remove_if_empty(group)

    def _get_or_create(self, key: GroupKey) -> QueuedGroup:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = QueuedGroup(key, None)
            self._add_to_class(group)
        return group

    def _add_to_class(self, group: QueuedGroup) -> None:
        group.job_class = self._class_of(group.key)
        if group.job_class is not None:
            self._groups_by_class.setdefault(group.job_class, []).append(group)

    def _remove_if_empty(self, group: QueuedGroup) -> None:
        if not group.is_empty or self._groups.get(group.key) is not group:
            return
        del self._groups[group.key]
        if group.job_class is not None:
            others = self._groups_by_class[group.job_class]
            others.remove(group)
            if not others:
                del self._groups_by_class[group.job_class]


def due_until_ms(now: float) -> int:
    """The moment up to which everything is due at `now` (UTC epoch seconds)."""
    # Rounded up a little: a timer that fires for a moment must find that moment reached.
    return int(now * 1000 + 0.01)
