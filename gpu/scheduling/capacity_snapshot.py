"""Pure: the rooms of all devices, kept by what changed, and a sketch in which a plan changes them."""

from __future__ import annotations

from gpu.memory.ledger import Ledger
from gpu.scheduling.capacity import DeviceCapacity
from gpu.scheduling.capacity_index import CapacityIndex
from gpu.scheduling.residency import Residency
from gpu.scheduling.resident_executor import DeviceSlot

Shelves = dict[int, CapacityIndex]


class Index:
    """Of each lane the shelves by the size of their devices. All of it follows from ledger and floor."""

    def __init__(self, ledger: Ledger, floor: Residency, changed: set[str]) -> None:
        self._ledger = ledger
        self._floor = floor
        #: Devices of which ledger or floor said that something has changed.
        self._changed = changed
        #: By whether it is the GPUs' lane.
        self.lanes: dict[bool, Shelves] = {True: {}, False: {}}

    def refresh(self) -> None:
        """Look at what has changed."""
        for device_id in self._changed:
            slot = self._floor.slots[device_id]
            shelves = self.lanes[slot.is_gpu]
            shelf = shelves.get(slot.device.cap_bytes)
            if shelf is None:
                shelf = shelves[slot.device.cap_bytes] = CapacityIndex(slot.device.cap_bytes)
            shelf.update(DeviceCapacity(self._ledger, slot))
        self._changed.clear()


class Sketch:
    """What will be left of the devices as a plan goes on. The index stays as it is."""

    def __init__(self, index: Index) -> None:
        self._lanes = {is_gpu: shelves.copy() for is_gpu, shelves in index.lanes.items()}
        self._own: set[int] = set()
        self._mine: set[int] = set()

    def shelves(self, is_gpu: bool) -> Shelves:
        """The shelves of a lane, by the size of their devices."""
        return self._lanes[is_gpu]

    def room(self, slot: DeviceSlot) -> DeviceCapacity:
        """What is left of a device, to be read."""
        return self._lanes[slot.is_gpu][slot.device.cap_bytes].capacities[slot.order]

    def mine(self, slot: DeviceSlot) -> DeviceCapacity:
        """The same, to be changed; then `put` it back."""
        room = self.room(slot)
        if slot.order in self._mine:
            return room
        self._mine.add(slot.order)
        return room.copy()

    def put(self, room: DeviceCapacity) -> None:
        """A room was changed."""
        cap = room.slot.device.cap_bytes
        shelves = self._lanes[room.slot.is_gpu]
        if id(shelves[cap]) not in self._own:
            shelves[cap] = shelves[cap].copy()
            self._own.add(id(shelves[cap]))
        shelves[cap].update(room)
