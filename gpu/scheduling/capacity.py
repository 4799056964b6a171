"""Pure: the remaining capacity of one device, in the figures by which a plan chooses."""

from __future__ import annotations

from gpu.memory.ledger import Ledger
from gpu.scheduling.resident_executor import DeviceSlot, ResidentExecutor

#: Bytes for a new executor now, once leaving executors have left, and once idle ones have left too (-1: none
#: may start, or none leaves), places for new executors, whether one more may be at work at all, and whether
#: any executor leaves or idles.
SortKeys = tuple[int, int, int, int, bool, bool]
NO_CAPACITY: SortKeys = (-1, -1, -1, 0, False, False)
#: `exclusive_executor` of a device on which the plan itself starts an executor that must be alone.
EXCLUSIVE = -1


class DeviceCapacity:
    """A device's capacity now, or after the actions that a plan has chosen so far."""

    __slots__ = (
        "claimed_bytes",
        "evictable",
        "evictable_bytes",
        "exclusive_executor",
        "free_bytes",
        "has_totals_only",
        "is_open",
        "leaving_count",
        "pending_bytes",
        "places",
        "planned_ends",
        "resident_count",
        "slot",
        "sort_keys",
    )

    def __init__(self, ledger: Ledger, slot: DeviceSlot) -> None:
        device_id = slot.device.id
        self.slot = slot
        self.is_open = slot.is_open
        #: Only the device's total is known: the bytes of two executors that load at once could not be told
        #: apart.
        self.has_totals_only = ledger.usage.level(device_id) == "totals"
        self.free_bytes = ledger.free_bytes(device_id)
        #: Bytes that become free soon: charged to executors that were evicted or have ended.
        self.pending_bytes = ledger.draining.pending_bytes(device_id)
        self.leaving_count = 0
        for executor, resident in slot.leaving.items():
            if not (resident.finishes_first and resident.is_busy):
                self.pending_bytes += ledger.charge_bytes(executor)
                self.leaving_count += 1
        #: Bytes claimed for waiting jobs, for which other executors were evicted.
        self.claimed_bytes = 0
        #: How many more executors may load or run.
        self.places = slot.max_executors - slot.busy_count
        self.resident_count = len(slot.residents)
        #: The executor beside which no other one starts.
        self.exclusive_executor = slot.exclusive_executor
        #: Idle executors that may be evicted, and their bytes.
        self.evictable = self.evictable_bytes = 0
        for executor, resident in slot.idle.items():
            if not resident.is_pinned:
                self.evictable += 1
                self.evictable_bytes += ledger.charge_bytes(executor)
        #: Expected end and bytes of each executor that the plan put to work here.
        self.planned_ends: tuple[tuple[float, int], ...] = ()
        #: The keys under which a capacity index holds it.
        self.sort_keys = NO_CAPACITY

    def copy(self) -> DeviceCapacity:
        """Return an editable copy."""
        other = object.__new__(DeviceCapacity)
        for name in DeviceCapacity.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    @property
    def free_soon(self) -> int:
        """Bytes that are free once leaving executors have left, without claimed ones."""
        return self.free_bytes + self.pending_bytes - self.claimed_bytes

    @property
    def free_now(self) -> int:
        """Bytes that are free now, without taking claimed ones."""
        return min(self.free_bytes, self.free_soon)

    @property
    def free_after_eviction(self) -> int:
        """Bytes that are free once all idle executors have left too."""
        return self.free_soon + self.evictable_bytes

    @property
    def is_at_resident_limit(self) -> bool:
        """Whether no more executors may be resident here, even once leaving ones have left."""
        return self.resident_count - self.leaving_count >= self.slot.max_residents

    @property
    def is_idle(self) -> bool:
        """Whether no executor is at work here."""
        return self.places >= self.slot.max_executors

    def has_place_for(self, nbytes: int) -> bool:
        """Return whether one more executor may load or run here, provided that its bytes are free."""
        return self.is_open and self.places > 0 and (nbytes <= 0 or self.exclusive_executor is None)

    def may_assign_more(self, resident: ResidentExecutor) -> bool:
        """Return whether an executor that runs here may be assigned more jobs."""
        return self.is_open and (
            resident.grant_bytes <= 0
            or self.exclusive_executor is None
            or self.exclusive_executor == resident.executor
        )

    def has_free_bytes(self, nbytes: int) -> bool:
        """Return whether the bytes are free now. 0 bytes always are."""
        return nbytes <= 0 or nbytes <= self.free_now

    def compute_sort_keys(self) -> SortKeys:
        """Return the keys under which a capacity index holds it."""
        if not self.is_open or self.places <= 0:
            return NO_CAPACITY
        places = self.places if self.resident_count < self.slot.max_residents else 0
        is_freeing = self.pending_bytes > 0 or bool(self.slot.idle)
        if self.exclusive_executor is not None:
            return -1, -1, -1, places, True, is_freeing
        is_at_pinned_limit = (
            self.resident_count - self.leaving_count - self.evictable >= self.slot.max_residents
        )
        return (
            max(0, self.free_now) if places else -1,
            -1 if self.pending_bytes <= 0 or self.is_at_resident_limit else max(0, self.free_soon),
            -1 if is_at_pinned_limit else max(0, self.free_after_eviction),
            places,
            True,
            is_freeing,
        )
