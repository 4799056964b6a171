"""Pure: what is left of one device, in the figures by which a plan chooses."""

from __future__ import annotations

from gpu.memory.ledger import Ledger
from gpu.scheduling.resident_executor import DeviceSlot, ResidentExecutor

#: Bytes for a new executor now, after those who leave have left, after idle ones have left too (-1: it may
#: not start, or nobody leaves), places for new ones, whether one more may be at work at all, and whether
#: anybody leaves or idles.
SortKeys = tuple[int, int, int, int, bool, bool]
NO_CAPACITY: SortKeys = (-1, -1, -1, 0, False, False)
#: Of a room in which a plan set somebody to work beside whom nobody starts.
EXCLUSIVE = -1


class DeviceCapacity:
    """A device as it is, or as it will be after what a plan has chosen so far."""

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
        #: Only the total of the device is known: two that load at once could not be told apart.
        self.has_totals_only = ledger.usage.level(device_id) == "totals"
        self.free_bytes = ledger.free_bytes(device_id)
        #: Will be free soon: charged to executors that were told to go or have ended.
        self.pending_bytes = ledger.draining.pending_bytes(device_id)
        self.leaving_count = 0
        for executor, resident in slot.leaving.items():
            if not (resident.finishes_first and resident.is_busy):
                self.pending_bytes += ledger.charge_bytes(executor)
                self.leaving_count += 1
        #: Promised to waiting jobs for which others were told to go.
        self.claimed_bytes = 0
        #: How many more executors may load or run.
        self.places = slot.max_executors - slot.busy_count
        self.resident_count = len(slot.residents)
        #: The executor beside which nothing starts.
        self.exclusive_executor = slot.exclusive_executor
        #: Idle ones that may be told to go, and their bytes.
        self.evictable = self.evictable_bytes = 0
        for executor, resident in slot.idle.items():
            if not resident.is_pinned:
                self.evictable += 1
                self.evictable_bytes += ledger.charge_bytes(executor)
        #: Of each that a plan set to work: its expected end, and its bytes here.
        self.planned_ends: tuple[tuple[float, int], ...] = ()
        #: By what it stands in a shelf.
        self.sort_keys = NO_CAPACITY

    def copy(self) -> DeviceCapacity:
        """The same figures, to be changed."""
        other = object.__new__(DeviceCapacity)
        for name in DeviceCapacity.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    @property
    def free_soon(self) -> int:
        """Free once those who leave have left, and not claimed."""
        return self.free_bytes + self.pending_bytes - self.claimed_bytes

    @property
    def free_now(self) -> int:
        """Free now without touching what others claimed."""
        return min(self.free_bytes, self.free_soon)

    @property
    def free_after_eviction(self) -> int:
        """Free once all that idles has left too."""
        return self.free_soon + self.evictable_bytes

    @property
    def is_at_resident_limit(self) -> bool:
        """No more executors may live here, even when those who leave have left."""
        return self.resident_count - self.leaving_count >= self.slot.max_residents

    @property
    def is_idle(self) -> bool:
        """Nobody is at work here."""
        return self.places >= self.slot.max_executors

    def has_place_for(self, nbytes: int) -> bool:
        """Whether one more executor may load or run here, were its bytes free."""
        return self.is_open and self.places > 0 and (nbytes <= 0 or self.exclusive_executor is None)

    def may_assign_more(self, resident: ResidentExecutor) -> bool:
        """Whether an executor that runs here may be handed more."""
        return self.is_open and (
            resident.grant_bytes <= 0
            or self.exclusive_executor is None
            or self.exclusive_executor == resident.executor
        )

    def has_free_bytes(self, nbytes: int) -> bool:
        """Whether the bytes are free now. 0 bytes always are."""
        return nbytes <= 0 or nbytes <= self.free_now

    def compute_sort_keys(self) -> SortKeys:
        """By what it is to stand in a shelf."""
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
