"""Pure: the line in which the jobs of one class wait."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from itertools import islice


class ClassBacklog:
    """Job numbers in the order in which they are to start. Adding, removing and looking at the
    first ones cost the same however long the line is."""

    __slots__ = ("_order", "_removed", "_waiting_since")

    def __init__(self) -> None:
        # Numbers that left from the middle stay in `_order` until they reach its front or outnumber the rest.
        self._order: deque[int] = deque()
        #: Since when each waits, in seconds.
        self._waiting_since: dict[int, float] = {}
        self._removed: set[int] = set()

    def __len__(self) -> int:
        return len(self._waiting_since)

    def __contains__(self, n: object) -> bool:
        return n in self._waiting_since

    @property
    def first(self) -> int:
        """The first one. Raises IndexError on an empty line."""
        return self._order[0]

    def waiting_since(self, n: int) -> float:
        """Since when a job waits. Raises KeyError where it does not."""
        return self._waiting_since[n]

    def add(self, n: int, *, first: bool = False, since: float = 0.0) -> bool:
        """Put a job at the end (or the front); False where it waits already."""
        if n in self._waiting_since:
            return False
        if n in self._removed:
            # Its old place must not come back to life.
            self._compact()
        self._waiting_since[n] = since
        if first:
            self._order.appendleft(n)
        else:
            self._order.append(n)
        return True

    def remove(self, n: int) -> bool:
        """Take a job out; False where it does not wait here."""
        if n not in self._waiting_since:
            return False
        self.remove_all((n,))
        return True

    def remove_all(self, ns: Iterable[int]) -> None:
        """Take jobs out that are known to wait here."""
        order, waiting_since, removed = self._order, self._waiting_since, self._removed
        for n in ns:
            del waiting_since[n]
            if order[0] == n:
                order.popleft()
            else:
                removed.add(n)
        while removed and order[0] in removed:
            removed.remove(order.popleft())
        if len(removed) > len(waiting_since) + 64:
            self._compact()

    def peek(self, count: int, skip: int = 0) -> list[int]:
        """The first `count` jobs after the first `skip`."""
        if not self._removed:
            return list(islice(self._order, skip, skip + count))
        remaining = (n for n in self._order if n not in self._removed)
        return list(islice(remaining, skip, skip + count))

    def count_ahead(self, n: int) -> int:
        """About how many wait before job `n`: exact while the line is in order of n and nobody left it."""
        return min(bisect_left(self._order, n), len(self._waiting_since))

    def _compact(self) -> None:
        self._order = deque(n for n in self._order if n in self._waiting_since)
        self._removed.clear()
