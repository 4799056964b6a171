"""Pure: the capacities of all devices, updated by change, and an overlay that a plan edits."""

from __future__ import annotations

from gpu.memory.ledger import Ledger
from gpu.scheduling.capacity import DeviceCapacity
from gpu.scheduling.capacity_index import CapacityIndex
from gpu.scheduling.residency import Residency
from gpu.scheduling.resident_executor import DeviceSlot

PoolIndexes = dict[int, CapacityIndex]


class CapacityTable:
    """Capacity indexes by pool and device size. All of it is derived from the ledger and the residency."""

    def __init__(self, ledger: Ledger, residency: Residency, changed: set[str]) -> None:
        self._ledger = ledger
        self._residency = residency
        #: Devices of which the ledger or the residency reported a change.
        self._changed = changed
        #: By whether it is the GPU pool.
        self.pools: dict[bool, PoolIndexes] = {True: {}, False: {}}

    def refresh(self) -> None:
        """Recompute the capacity of each changed device."""
        for device_id in self._changed:
            slot = self._residency.slots[device_id]
            indexes = self.pools[slot.is_gpu]
            index = indexes.get(slot.device.cap_bytes)
            if index is None:
                index = indexes[slot.device.cap_bytes] = CapacityIndex(slot.device.cap_bytes)
            index.update(DeviceCapacity(self._ledger, slot))
        self._changed.clear()


class CapacityOverlay:
    """The capacities after the actions of a plan so far. The table itself stays unchanged."""

    def __init__(self, table: CapacityTable) -> None:
        self._pools = {is_gpu: indexes.copy() for is_gpu, indexes in table.pools.items()}
        self._copied_indexes: set[int] = set()
        self._copied_devices: set[int] = set()

    def pool(self, is_gpu: bool) -> PoolIndexes:
        """Return the indexes of a pool, by the size of its devices."""
        return self._pools[is_gpu]

    def capacity(self, slot: DeviceSlot) -> DeviceCapacity:
        """Return the capacity of a device, read-only."""
        return self._pools[slot.is_gpu][slot.device.cap_bytes].capacities[slot.order]

    def editable(self, slot: DeviceSlot) -> DeviceCapacity:
        """Return the capacity of a device for editing; pass it to `update` afterwards."""
        capacity = self.capacity(slot)
        if slot.order in self._copied_devices:
            return capacity
        self._copied_devices.add(slot.order)
        return capacity.copy()

    def update(self, capacity: DeviceCapacity) -> None:
        """Index an edited capacity again."""
        cap_bytes = capacity.slot.device.cap_bytes
        indexes = self._pools[capacity.slot.is_gpu]
        if id(indexes[cap_bytes]) not in self._copied_indexes:
            indexes[cap_bytes] = indexes[cap_bytes].copy()
            self._copied_indexes.add(id(indexes[cap_bytes]))
        indexes[cap_bytes].update(capacity)
