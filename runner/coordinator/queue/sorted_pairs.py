"""Pure: a long sorted line of (moment, number) pairs in 16 bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import islice
from operator import ge
from typing import Self

#: A part of the column holds at most so many pairs: a change in the middle moves 64 KiB.
PART_MAX = 4096

Pair = tuple[int, int]


class Column:
    """Pairs of whole numbers of 64 bits in order, moments as `stores.queued.moment` bounds them. A million
    take 16 MB, where objects of Python would take 100; adding, removing and looking one up cost the same
    however many there are."""

    __slots__ = ("_lasts", "_part_max", "_parts", "_size")

    def __init__(self, pairs: Iterable[Pair] = (), *, part_max: int = PART_MAX) -> None:
        self._part_max = part_max
        #: (moments, numbers) of the parts, in order; none is empty.
        self._parts: list[tuple[array[int], array[int]]] = []
        #: The last pair of each part.
        self._lasts: list[Pair] = []
        self._size = 0
        for at, n in pairs:
            self.add(at, n)

    @classmethod
    def of_numbers(cls, ns: array[int], *, part_max: int = PART_MAX) -> Self:
        """These numbers, all at moment 0; in order, as an index gives them, they are taken in by parts."""
        column = cls(part_max=part_max)
        if any(map(ge, ns, islice(ns, 1, None))):
            ns = array("q", sorted(set(ns)))
        for start in range(0, len(ns), part_max):
            part = ns[start : start + part_max]
            column._parts.append((array("q", bytes(8 * len(part))), part))
            column._lasts.append((0, part[-1]))
        column._size = len(ns)
        return column

    def __len__(self) -> int:
        return self._size

    def __contains__(self, pair: Pair) -> bool:
        part, index = self._place(*pair)
        return self._holds(part, index, *pair)

    @property
    def head(self) -> Pair | None:
        """The first pair."""
        if not self._parts:
            return None
        ats, ns = self._parts[0]
        return ats[0], ns[0]

    def add(self, at: int, n: int) -> bool:
        """Put a pair in its place; False where it is there already."""
        if not self._lasts or (at, n) > self._lasts[-1]:
            self._append(at, n)
            return True
        part, index = self._place(at, n)
        if self._holds(part, index, at, n):
            return False
        ats, ns = self._parts[part]
        ats.insert(index, at)
        ns.insert(index, n)
        self._size += 1
        if len(ns) > self._part_max:
            self._split(part)
        return True

    def discard(self, at: int, n: int) -> bool:
        """Take a pair out; False where it was not there."""
        part, index = self._place(at, n)
        if not self._holds(part, index, at, n):
            return False
        ats, ns = self._parts[part]
        del ats[index], ns[index]
        self._size -= 1
        if not ns:
            del self._parts[part], self._lasts[part]
        elif index == len(ns):
            self._lasts[part] = (ats[-1], ns[-1])
        return True

    def first(self, count: int) -> list[Pair]:
        """The first `count` pairs."""
        found: list[Pair] = []
        for ats, ns in self._parts:
            left = count - len(found)
            if left <= 0:
                break
            found += zip(ats[:left], ns[:left], strict=True)
        return found

    def take_until(self, at: int, count: int) -> list[int]:
        """Take out the numbers of the first pairs up to this moment, at most `count`."""
        taken = [n for when, n in self.first(count) if when <= at]
        left = len(taken)
        while left:
            ats, ns = self._parts[0]
            gone = min(left, len(ns))
            if gone == len(ns):
                del self._parts[0], self._lasts[0]
            else:
                del ats[:gone], ns[:gone]
            left -= gone
        self._size -= len(taken)
        return taken

    def rank(self, at: int, n: int) -> int:
        """How many pairs come before this one."""
        part, index = self._place(at, n)
        return sum(len(ns) for _, ns in self._parts[:part]) + index

    def _append(self, at: int, n: int) -> None:
        if not self._parts or len(self._parts[-1][1]) >= self._part_max:
            self._parts.append((array("q"), array("q")))
            self._lasts.append((at, n))
        ats, ns = self._parts[-1]
        ats.append(at)
        ns.append(n)
        self._lasts[-1] = (at, n)
        self._size += 1

    def _place(self, at: int, n: int) -> tuple[int, int]:
        """The part and the index in it where the pair is, or would be."""
        part = bisect_left(self._lasts, (at, n))
        if part == len(self._parts):
            return part, 0
        ats, ns = self._parts[part]
        start = bisect_left(ats, at)
        return part, bisect_left(ns, n, start, bisect_right(ats, at, start))

    def _holds(self, part: int, index: int, at: int, n: int) -> bool:
        if part == len(self._parts):
            return False
        # Its part ends at or after the pair, so there is something at this index.
        ats, ns = self._parts[part]
        return ats[index] == at and ns[index] == n

    def _split(self, part: int) -> None:
        ats, ns = self._parts[part]
        half = len(ns) // 2
        self._parts[part : part + 1] = [(ats[:half], ns[:half]), (ats[half:], ns[half:])]
        self._lasts.insert(part, (ats[half - 1], ns[half - 1]))
