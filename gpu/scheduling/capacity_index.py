"""Pure: devices of one size, sorted by what is left of them, so that a fit is found without asking each."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from gpu.scheduling.capacity import NO_CAPACITY, DeviceCapacity

_Sorted = list[tuple[int, int]]


class Shelf:
    """Rooms by their places, in four orders. A room that has changed must be put in again."""

    __slots__ = ("_coming", "_free", "_places", "_reach", "admitting", "cap_bytes", "moving", "rooms")

    def __init__(self, cap_bytes: int) -> None:
        self.cap_bytes = cap_bytes
        self.rooms: dict[int, DeviceCapacity] = {}
        #: On how many devices one more may be at work, were its bytes free.
        self.admitting = 0
        #: On how many somebody leaves or idles.
        self.moving = 0
        self._free: _Sorted = []
        self._coming: _Sorted = []
        self._reach: _Sorted = []
        self._places: _Sorted = []

    def copy(self) -> Shelf:
        """The same rooms, of which others may be put in."""
        other = Shelf(self.cap_bytes)
        other.rooms = self.rooms.copy()
        other.admitting, other.moving = self.admitting, self.moving
        other._free, other._coming = self._free[:], self._coming[:]
        other._reach, other._places = self._reach[:], self._places[:]
        return other

    def put(self, room: DeviceCapacity) -> None:
        """Take up a device's figures in place of those known before."""
        place = room.slot.order
        known = self.rooms.get(place)
        was = NO_CAPACITY if known is None else known.sort_keys
        self.rooms[place] = room
        room.sort_keys = now = room.compute_sort_keys()
        if now == was:
            return
        _move(self._free, was[0], now[0], place)
        _move(self._coming, was[1], now[1], place)
        _move(self._reach, was[2], now[2], place)
        # The most places first; none is not listed.
        _move(self._places, -was[3] or 1, -now[3] or 1, place, most=0)
        self.admitting += now[4] - was[4]
        self.moving += now[5] - was[5]

    def fitting(self, nbytes: int) -> Iterator[DeviceCapacity]:
        """Where a new executor of so many bytes may start now, the least left over first."""
        return self._from(self._free, nbytes)

    def roomiest(self, nbytes: int) -> Iterator[DeviceCapacity]:
        """The same, the most left over first."""
        order, end = self._free, len(self._free)
        while end and order[end - 1][0] >= nbytes:
            begin = bisect_left(order, (order[end - 1][0], -1))
            for at in range(begin, end):
                yield self.rooms[order[at][1]]
            end = begin

    def emptiest(self) -> Iterator[DeviceCapacity]:
        """Where a new executor without bytes may start now, the most places first."""
        for _, place in self._places:
            yield self.rooms[place]

    def reachable(self, nbytes: int) -> Iterator[DeviceCapacity]:
        """Where a new executor of so many bytes could start if all went that leaves, then (some of them
        again) if all that idles went too, the least left over first."""
        yield from self._from(self._coming, nbytes)
        yield from self._from(self._reach, nbytes)

    def leaving(self, nbytes: int) -> Iterator[DeviceCapacity]:
        """Those of them where somebody leaves, and where that is enough."""
        return self._from(self._coming, nbytes)

    def _from(self, order: _Sorted, nbytes: int) -> Iterator[DeviceCapacity]:
        for at in range(bisect_left(order, (nbytes, -1)), len(order)):
            yield self.rooms[order[at][1]]


def _move(order: _Sorted, was: int, now: int, place: int, most: int | None = None) -> None:
    """Sort an entry in anew. Not listed are values below 0, or above `most` where there is one."""
    if was == now:
        return
    if (was >= 0) if most is None else (was <= most):
        del order[bisect_left(order, (was, place))]
    if (now >= 0) if most is None else (now <= most):
        insort(order, (now, place))
