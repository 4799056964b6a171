"""Pure: what is left of one device, in the figures by which a plan chooses."""

from __future__ import annotations

from gpu.memory.ledger import Ledger
from gpu.scheduling.resident_executor import DeviceSlot, ResidentExecutor

#: Bytes for a new executor now, after those who leave have left, after idle ones have left too (-1: it may
#: not start, or nobody leaves), places for new ones, whether one more may be at work at all, and whether
#: anybody leaves or idles.
Keys = tuple[int, int, int, int, bool, bool]
NOWHERE: Keys = (-1, -1, -1, 0, False, False)
#: Of a room in which a plan set somebody to work beside whom nobody starts.
TAKEN = -1


class Room:
    """A device as it is, or as it will be after what a plan has chosen so far."""

    __slots__ = (
        "begun",
        "claimed",
        "exclusive",
        "free",
        "is_blind",
        "is_open",
        "keys",
        "leaving",
        "left",
        "pending",
        "residents",
        "slot",
        "spare_bytes",
        "spares",
    )

    def __init__(self, ledger: Ledger, slot: DeviceSlot) -> None:
        device_id = slot.device.id
        self.slot = slot
        self.is_open = slot.is_open
        #: Only the total of the device is known: two that load at once could not be told apart.
        self.is_blind = ledger.usage.level(device_id) == "totals"
        self.free = ledger.free_bytes(device_id)
        #: Will be free soon: charged to executors that were told to go or have ended.
        self.pending = ledger.draining.pending_bytes(device_id)
        self.leaving = 0
        for executor, resident in slot.leaving.items():
            if not (resident.finishes_first and resident.is_busy):
                self.pending += ledger.charge_bytes(executor)
                self.leaving += 1
        #: Promised to waiting jobs for which others were told to go.
        self.claimed = 0
        #: How many more executors may load or run.
        self.left = slot.max_executors - slot.busy_count
        self.residents = len(slot.residents)
        #: The executor beside which nothing starts.
        self.exclusive = slot.exclusive_executor
        #: Idle ones that may be told to go, and their bytes.
        self.spares = self.spare_bytes = 0
        for executor, resident in slot.idle.items():
            if not resident.is_pinned:
                self.spares += 1
                self.spare_bytes += ledger.charge_bytes(executor)
        #: Of each that a plan set to work: its expected end, and its bytes here.
        self.begun: tuple[tuple[float, int], ...] = ()
        #: By what it stands in a shelf.
        self.keys = NOWHERE

    def copy(self) -> Room:
        """The same figures, to be changed."""
        other = object.__new__(Room)
        for name in Room.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    @property
    def coming(self) -> int:
        """Free once those who leave have left, and not claimed."""
        return self.free + self.pending - self.claimed

    @property
    def avail(self) -> int:
        """Free now without touching what others claimed."""
        return min(self.free, self.coming)

    @property
    def reach(self) -> int:
        """Free once all that idles has left too."""
        return self.coming + self.spare_bytes

    @property
    def is_crowded(self) -> bool:
        """No more executors may live here, even when those who leave have left."""
        return self.residents - self.leaving >= self.slot.max_residents

    @property
    def is_quiet(self) -> bool:
        """Nobody is at work here."""
        return self.left >= self.slot.max_executors

    def admits(self, nbytes: int) -> bool:
        """Whether one more executor may load or run here, were its bytes free."""
        return self.is_open and self.left > 0 and (nbytes <= 0 or self.exclusive is None)

    def admits_more(self, resident: ResidentExecutor) -> bool:
        """Whether an executor that runs here may be handed more."""
        return self.is_open and (
            resident.grant_bytes <= 0 or self.exclusive is None or self.exclusive == resident.executor
        )

    def has(self, nbytes: int) -> bool:
        """Whether the bytes are free now. 0 bytes always are."""
        return nbytes <= 0 or nbytes <= self.avail

    def sort(self) -> Keys:
        """By what it is to stand in a shelf."""
        if not self.is_open or self.left <= 0:
            return NOWHERE
        places = self.left if self.residents < self.slot.max_residents else 0
        is_moving = self.pending > 0 or bool(self.slot.idle)
        if self.exclusive is not None:
            return -1, -1, -1, places, True, is_moving
        is_hopeless = self.residents - self.leaving - self.spares >= self.slot.max_residents
        return (
            max(0, self.avail) if places else -1,
            -1 if self.pending <= 0 or self.is_crowded else max(0, self.coming),
            -1 if is_hopeless else max(0, self.reach),
            places,
            True,
            is_moving,
        )
