"""Pure: the queue in which the jobs of one class wait."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from itertools import islice


class ClassBacklog:
    """Job numbers in the order in which they start.

    Adding, removing and reading the first ones cost the same however many jobs wait.
    """

    __slots__ = ("_order", "_removed", "_waiting_since")

    def __init__(self) -> None:
        """Start without jobs."""
        # Numbers removed from the middle stay in `_order` until they reach its front or outnumber the rest.
        self._order: deque[int] = deque()
        #: When each job began to wait, in seconds.
        self._waiting_since: dict[int, float] = {}
        self._removed: set[int] = set()

    def __len__(self) -> int:
        return len(self._waiting_since)

    def __contains__(self, job_number: object) -> bool:
        return job_number in self._waiting_since

    @property
    def first(self) -> int:
        """The first job. Raises IndexError on an empty backlog."""
        return self._order[0]

    def waiting_since(self, job_number: int) -> float:
        """Return when a job began to wait. Raises KeyError where it does not wait."""
        return self._waiting_since[job_number]

    def add(self, job_number: int, *, first: bool = False, since: float = 0.0) -> bool:
        """Add a job at the end (or the front); False where it already waits."""
        if job_number in self._waiting_since:
            return False
        if job_number in self._removed:
            # A stale entry must not count as its place again.
            self._compact()
        self._waiting_since[job_number] = since
        if first:
            self._order.appendleft(job_number)
        else:
            self._order.append(job_number)
        return True

    def remove(self, job_number: int) -> bool:
        """Remove a job; False where it does not wait here."""
        if job_number not in self._waiting_since:
            return False
        self.remove_all((job_number,))
        return True

    def remove_all(self, job_numbers: Iterable[int]) -> None:
        """Remove jobs that are known to wait here."""
        order, waiting_since, removed = self._order, self._waiting_since, self._removed
        for job_number in job_numbers:
            del waiting_since[job_number]
            if order[0] == job_number:
                order.popleft()
            else:
                removed.add(job_number)
        while removed and order[0] in removed:
            removed.remove(order.popleft())
        if len(removed) > len(waiting_since) + 64:
            self._compact()

    def peek(self, count: int, skip: int = 0) -> list[int]:
        """Return the first `count` jobs after the first `skip`."""
        if not self._removed:
            return list(islice(self._order, skip, skip + count))
        remaining = (job_number for job_number in self._order if job_number not in self._removed)
        return list(islice(remaining, skip, skip + count))

    def count_ahead(self, job_number: int) -> int:
        """Return about how many jobs wait before a job.

        Exact while the backlog is in order of job numbers and none was removed from its middle.
        """
        return min(bisect_left(self._order, job_number), len(self._waiting_since))

    def _compact(self) -> None:
        """Drop the numbers that were removed from the middle."""
        self._order = deque(job_number for job_number in self._order if job_number in self._waiting_since)
        self._removed.clear()
