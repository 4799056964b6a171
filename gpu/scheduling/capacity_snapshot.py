"""Pure: the rooms of all devices, kept by what changed, and a sketch in which a plan changes them."""

from __future__ import annotations

from gpu.memory.ledger import Ledger
from gpu.scheduling.capacity import DeviceCapacity
from gpu.scheduling.capacity_index import CapacityIndex
from gpu.scheduling.residency import Residency
from gpu.scheduling.resident_executor import DeviceSlot

PoolIndexes = dict[int, CapacityIndex]


class CapacityTable:
    """Of each lane the shelves by the size of their devices. All of it follows from ledger and floor."""

    def __init__(self, ledger: Ledger, residency: Residency, changed: set[str]) -> None:
        self._ledger = ledger
        self._residency = residency
        #: Devices of which ledger or floor said that something has changed.
        self._changed = changed
        #: By whether it is the GPUs' lane.
        self.pools: dict[bool, PoolIndexes] = {True: {}, False: {}}

    def refresh(self) -> None:
        """Look at what has changed."""
        for device_id in self._changed:
            slot = self._residency.slots[device_id]
            indexes = self.pools[slot.is_gpu]
            index = indexes.get(slot.device.cap_bytes)
            if index is None:
                index = indexes[slot.device.cap_bytes] = CapacityIndex(slot.device.cap_bytes)
            index.update(DeviceCapacity(self._ledger, slot))
        self._changed.clear()


class CapacityOverlay:
    """What will be left of the devices as a plan goes on. The index stays as it is."""

    def __init__(self, table: CapacityTable) -> None:
        self._pools = {is_gpu: indexes.copy() for is_gpu, indexes in table.pools.items()}
        self._copied_indexes: set[int] = set()
        self._copied_devices: set[int] = set()

    def pool(self, is_gpu: bool) -> PoolIndexes:
        """The shelves of a lane, by the size of their devices."""
        return self._pools[is_gpu]

    def capacity(self, slot: DeviceSlot) -> DeviceCapacity:
        """What is left of a device, to be read."""
        return self._pools[slot.is_gpu][slot.device.cap_bytes].capacities[slot.order]

    def editable(self, slot: DeviceSlot) -> DeviceCapacity:
        """The same, to be changed; then `put` it back."""
        capacity = self.capacity(slot)
        if slot.order in self._copied_devices:
            return capacity
        self._copied_devices.add(slot.order)
        return capacity.copy()

    def update(self, capacity: DeviceCapacity) -> None:
        """A room was changed."""
        cap_bytes = capacity.slot.device.cap_bytes
        indexes = self._pools[capacity.slot.is_gpu]
        if id(indexes[cap_bytes]) not in self._copied_indexes:
            indexes[cap_bytes] = indexes[cap_bytes].copy()
            self._copied_indexes.add(id(indexes[cap_bytes]))
        indexes[cap_bytes].update(capacity)
