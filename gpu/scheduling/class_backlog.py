"""Pure: the line in which the jobs of one class wait."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from itertools import islice


class Line:
    """Job numbers in the order in which they are to start. Adding, removing and looking at the
    first ones cost the same however long the line is."""

    __slots__ = ("_gone", "_live", "_order")

    def __init__(self) -> None:
        # Numbers that left from the middle stay in `_order` until they reach its front or outnumber the rest.
        self._order: deque[int] = deque()
        #: Since when each waits, in seconds.
        self._live: dict[int, float] = {}
        self._gone: set[int] = set()

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, n: object) -> bool:
        return n in self._live

    @property
    def head(self) -> int:
        """The first one. Raises IndexError on an empty line."""
        return self._order[0]

    def since(self, n: int) -> float:
        """Since when a job waits. Raises KeyError where it does not."""
        return self._live[n]

    def add(self, n: int, *, first: bool = False, since: float = 0.0) -> bool:
        """Put a job at the end (or the front); False where it waits already."""
        if n in self._live:
            return False
        if n in self._gone:
            # Its old place must not come back to life.
            self._compact()
        self._live[n] = since
        if first:
            self._order.appendleft(n)
        else:
            self._order.append(n)
        return True

    def remove(self, n: int) -> bool:
        """Take a job out; False where it does not wait here."""
        if n not in self._live:
            return False
        self.take((n,))
        return True

    def take(self, ns: Iterable[int]) -> None:
        """Take jobs out that are known to wait here."""
        order, live, gone = self._order, self._live, self._gone
        for n in ns:
            del live[n]
            if order[0] == n:
                order.popleft()
            else:
                gone.add(n)
        while gone and order[0] in gone:
            gone.remove(order.popleft())
        if len(gone) > len(live) + 64:
            self._compact()

    def peek(self, count: int, skip: int = 0) -> list[int]:
        """The first `count` jobs after the first `skip`."""
        if not self._gone:
            return list(islice(self._order, skip, skip + count))
        waiting = (n for n in self._order if n not in self._gone)
        return list(islice(waiting, skip, skip + count))

    def ahead_of(self, n: int) -> int:
        """About how many wait before job `n`: exact while the line is in order of n and nobody left it."""
        return min(bisect_left(self._order, n), len(self._live))

    def _compact(self) -> None:
        self._order = deque(n for n in self._order if n in self._live)
        self._gone.clear()
