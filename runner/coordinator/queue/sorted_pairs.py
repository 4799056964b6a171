"""Pure: a long sorted sequence of (time, number) pairs in 16 bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import islice
from operator import ge
from typing import Self

#: The largest number of pairs in a part: a change in the middle moves 64 KiB.
PART_PAIRS_MAX = 4096

Pair = tuple[int, int]


class SortedPairs:
    """Distinct pairs of 64-bit integers, in order.

    `stores.queued_groups.to_millis` bounds the times (ms), 0 stands for "no time". A million pairs take 16
    MB; as Python objects they would take 100 MB. Adding, removing and looking up take a bisection over the
    parts and one within a part, and move at most one part.
    """

    __slots__ = ("_last_pairs", "_part_max", "_parts", "_size")

    def __init__(self, pairs: Iterable[Pair] = (), *, part_max: int = PART_PAIRS_MAX) -> None:
        self._part_max = part_max
        #: (moments, numbers) of the parts, in order; none is empty.
        self._parts: list[tuple[array[int], array[int]]] = []
        #: The last pair of each part.
        self._last_pairs: list[Pair] = []
        self._size = 0
        for at, number in pairs:
            self.add(at, number)

    @classmethod
    def from_numbers(cls, numbers: array[int], *, part_max: int = PART_PAIRS_MAX) -> Self:
        """Build from numbers, all at time 0.

        Numbers in ascending order, as an index of the store returns them, are copied part by part.
        """
        made = cls(part_max=part_max)
        if any(map(ge, numbers, islice(numbers, 1, None))):
            numbers = array("q", sorted(set(numbers)))
        for start in range(0, len(numbers), part_max):
            part = numbers[start : start + part_max]
            made._parts.append((array("q", bytes(8 * len(part))), part))
            made._last_pairs.append((0, part[-1]))
        made._size = len(numbers)
        return made

    def __len__(self) -> int:
        return self._size

    def __contains__(self, pair: Pair) -> bool:
        part, index = self._find_position(*pair)
        return self._has_at(part, index, *pair)

    @property
    def first_pair(self) -> Pair | None:
        """The first pair; None if there is none."""
        if not self._parts:
            return None
        moments, numbers = self._parts[0]
        return moments[0], numbers[0]

    def add(self, at: int, number: int) -> bool:
        """Insert a pair; False if it is there already."""
        if not self._last_pairs or (at, number) > self._last_pairs[-1]:
            self._append(at, number)
            return True
        part, index = self._find_position(at, number)
        if self._has_at(part, index, at, number):
            return False
        moments, numbers = self._parts[part]
        moments.insert(index, at)
        numbers.insert(index, number)
        self._size += 1
        if len(numbers) > self._part_max:
            self._split(part)
        return True

    def discard(self, at: int, number: int) -> bool:
        """Remove a pair; False if it is not there."""
        part, index = self._find_position(at, number)
        if not self._has_at(part, index, at, number):
            return False
        moments, numbers = self._parts[part]
        del moments[index], numbers[index]
        self._size -= 1
        if not numbers:
            del self._parts[part], self._last_pairs[part]
        elif index == len(numbers):
            self._last_pairs[part] = (moments[-1], numbers[-1])
        return True

    def discard_number(self, number: int) -> bool:
        """Remove the pair of a number whose time is not known, by a search through all; False without one."""
        for moments, numbers in self._parts:
            if number in numbers:
                return self.discard(moments[numbers.index(number)], number)
        return False

    def first_pairs(self, count: int) -> list[Pair]:
        """The first `count` pairs."""
        found: list[Pair] = []
        for moments, numbers in self._parts:
            remaining = count - len(found)
            if remaining <= 0:
                break
            found += zip(moments[:remaining], numbers[:remaining], strict=True)
        return found

    def remove_until(self, at: int, count: int) -> list[int]:
        """Remove the first pairs up to and including this time, at most `count`; return their numbers."""
        taken = [number for moment, number in self.first_pairs(count) if moment <= at]
        remaining = len(taken)
        while remaining:
            moments, numbers = self._parts[0]
            count_here = min(remaining, len(numbers))
            if count_here == len(numbers):
                del self._parts[0], self._last_pairs[0]
            else:
                del moments[:count_here], numbers[:count_here]
            remaining -= count_here
        self._size -= len(taken)
        return taken

    def count_before(self, at: int, number: int) -> int:
        """Count the pairs that come before this one, which need not be here."""
        part, index = self._find_position(at, number)
        return sum(len(numbers) for _, numbers in self._parts[:part]) + index

    def _append(self, at: int, number: int) -> None:
        if not self._parts or len(self._parts[-1][1]) >= self._part_max:
            self._parts.append((array("q"), array("q")))
            self._last_pairs.append((at, number))
        moments, numbers = self._parts[-1]
        moments.append(at)
        numbers.append(number)
        self._last_pairs[-1] = (at, number)
        self._size += 1

    def _find_position(self, at: int, number: int) -> tuple[int, int]:
        """The part, and the index in it, at which the pair is or would be."""
        part = bisect_left(self._last_pairs, (at, number))
        if part == len(self._parts):
            return part, 0
        moments, numbers = self._parts[part]
        start = bisect_left(moments, at)
        return part, bisect_left(numbers, number, start, bisect_right(moments, at, start))

    def _has_at(self, part: int, index: int, at: int, number: int) -> bool:
        if part == len(self._parts):
            return False
        # The part ends at or after the pair, so there is a pair at this index.
        moments, numbers = self._parts[part]
        return moments[index] == at and numbers[index] == number

    def _split(self, part: int) -> None:
        """Split a part that has become too long into halves."""
        moments, numbers = self._parts[part]
        half = len(numbers) // 2
        self._parts[part : part + 1] = [(moments[:half], numbers[:half]), (moments[half:], numbers[half:])]
        self._last_pairs.insert(part, (moments[half - 1], numbers[half - 1]))
