"""Pure: devices of one size, sorted by remaining capacity, so that a fit is found without trying each."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from gpu.scheduling.capacity import NO_CAPACITY, DeviceCapacity

#: (value, order of the device), ascending.
_Sorted = list[tuple[int, int]]


class CapacityIndex:
    """Capacities by device order, in four sort orders. Call `update` with a capacity that has changed."""

    __slots__ = (
        "_free_after_eviction",
        "_free_now",
        "_free_soon",
        "_places",
        "cap_bytes",
        "capacities",
        "freeing_count",
        "open_count",
    )

    def __init__(self, cap_bytes: int) -> None:
        """Start without devices; all that are added can grant `cap_bytes` in total."""
        self.cap_bytes = cap_bytes
        self.capacities: dict[int, DeviceCapacity] = {}
        #: On how many devices one more executor may be at work, provided that its bytes are free.
        self.open_count = 0
        #: On how many devices an executor leaves or idles.
        self.freeing_count = 0
        self._free_now: _Sorted = []
        self._free_soon: _Sorted = []
        self._free_after_eviction: _Sorted = []
        self._places: _Sorted = []

    def copy(self) -> CapacityIndex:
        """Return an index of the same capacities that can be updated independently."""
        other = CapacityIndex(self.cap_bytes)
        other.capacities = self.capacities.copy()
        other.open_count, other.freeing_count = self.open_count, self.freeing_count
        other._free_now, other._free_soon = self._free_now[:], self._free_soon[:]
        other._free_after_eviction, other._places = self._free_after_eviction[:], self._places[:]
        return other

    def update(self, capacity: DeviceCapacity) -> None:
        """Replace the known capacity of a device."""
        device_order = capacity.slot.order
        known = self.capacities.get(device_order)
        old_keys = NO_CAPACITY if known is None else known.sort_keys
        self.capacities[device_order] = capacity
        capacity.sort_keys = new_keys = capacity.compute_sort_keys()
        if new_keys == old_keys:
            return
        _reposition(self._free_now, old_keys[0], new_keys[0], device_order)
        _reposition(self._free_soon, old_keys[1], new_keys[1], device_order)
        _reposition(self._free_after_eviction, old_keys[2], new_keys[2], device_order)
        # Most places first; a device without places is not listed.
        _reposition(self._places, -old_keys[3] or 1, -new_keys[3] or 1, device_order, max_value=0)
        self.open_count += new_keys[4] - old_keys[4]
        self.freeing_count += new_keys[5] - old_keys[5]

    def could_fit(self, nbytes: int) -> bool:
        """Return whether a new executor of `nbytes` may fit on a device now, or once others have left."""
        return (nbytes <= 0 and bool(self._places)) or any(
            order and order[-1][0] >= nbytes
            for order in (self._free_now, self._free_after_eviction, self._free_soon)
        )

    def best_fit(self, nbytes: int) -> Iterator[DeviceCapacity]:
        """Yield the devices where a new executor of `nbytes` may start now, the tightest fit first."""
        return self._at_least(self._free_now, nbytes)

    def largest_first(self, nbytes: int) -> Iterator[DeviceCapacity]:
        """Yield the same devices, the most remaining bytes first."""
        order, end = self._free_now, len(self._free_now)
        while end and order[end - 1][0] >= nbytes:
            begin = bisect_left(order, (order[end - 1][0], -1))
            for at in range(begin, end):
                yield self.capacities[order[at][1]]
            end = begin

    def most_places(self) -> Iterator[DeviceCapacity]:
        """Yield the devices where a new executor without bytes may start now, the most places first."""
        for _, device_order in self._places:
            yield self.capacities[device_order]

    def after_eviction(self, nbytes: int) -> Iterator[DeviceCapacity]:
        """Yield the devices where a new executor of `nbytes` could start once others have left.

        First those where leaving executors free enough, then, some of them again, those where evicting all
        idle ones would; of each the least remaining bytes first.
        """
        yield from self._at_least(self._free_soon, nbytes)
        yield from self._at_least(self._free_after_eviction, nbytes)

    def after_leaving(self, nbytes: int) -> Iterator[DeviceCapacity]:
        """Yield the devices where an executor is leaving and that frees enough."""
        return self._at_least(self._free_soon, nbytes)

    def _at_least(self, order: _Sorted, nbytes: int) -> Iterator[DeviceCapacity]:
        """Yield the devices with at least that many bytes in one of the orders, the fewest bytes first."""
        for at in range(bisect_left(order, (nbytes, -1)), len(order)):
            yield self.capacities[order[at][1]]


def _reposition(
    order: _Sorted, old_value: int, new_value: int, device_order: int, max_value: int | None = None
) -> None:
    """Move an entry in a sorted list. Values below 0, or above `max_value` if given, are not listed."""
    if old_value == new_value:
        return
    if (old_value >= 0) if max_value is None else (old_value <= max_value):
        del order[bisect_left(order, (old_value, device_order))]
    if (new_value >= 0) if max_value is None else (new_value <= max_value):
        insort(order, (new_value, device_order))
