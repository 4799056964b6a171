"""Pure: the scratch figures of one plan: what is left of devices and lines as actions are taken."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from gpu.bypass import is_harmed
from gpu.line import JobClass
from gpu.resident import Resident, Slot
from gpu.view import View


class Room:
    """A device in the course of one plan."""

    __slots__ = ("claimed", "exclusive", "free", "leaving", "left", "pending", "residents", "slot")

    def __init__(self, view: View, slot: Slot) -> None:
        ledger, device_id = view.ledger, slot.device.id
        self.slot = slot
        self.free = ledger.free_bytes(device_id)
        #: Will be free soon: charged to executors that were told to go or have ended.
        self.pending = ledger.draining_bytes(device_id)
        self.leaving = 0
        for executor, resident in slot.leaving.items():
            if not (resident.lingers and resident.busy):
                self.pending += ledger.charge_bytes(executor)
                self.leaving += 1
        #: Promised to waiting jobs for which others were told to go.
        self.claimed = 0
        #: How many more executors may load or run.
        self.left = slot.max_executors - slot.busy
        self.residents = len(slot.residents)
        #: The executor beside which nothing starts; -1 for one that this plan loads.
        self.exclusive = slot.exclusive

    @property
    def coming(self) -> int:
        """Free once those who leave have left, and not claimed."""
        return self.free + self.pending - self.claimed

    @property
    def avail(self) -> int:
        """Free now without touching what others claimed."""
        return min(self.free, self.coming)

    @property
    def is_crowded(self) -> bool:
        """No more executors may live here, even when those who leave have left."""
        return self.residents - self.leaving >= self.slot.max_residents

    def admits(self, nbytes: int, *, alone: bool = False) -> bool:
        """Whether one more executor may load or run here, were its bytes free; `alone`: and with nobody
        else at work."""
        if not self.slot.is_open or self.left <= 0 or (alone and self.left < self.slot.max_executors):
            return False
        return nbytes <= 0 or self.exclusive is None

    def admits_more(self, resident: Resident) -> bool:
        """Whether an executor that runs here may be handed more."""
        return self.slot.is_open and (
            resident.grant_bytes <= 0 or self.exclusive is None or self.exclusive == resident.executor
        )

    def has(self, nbytes: int) -> bool:
        """Whether the bytes are free now. 0 bytes always are."""
        return nbytes <= 0 or nbytes <= self.avail

    def has_for_new(self, nbytes: int, *, alone: bool = False) -> bool:
        """Whether a new executor fits now."""
        return (
            self.admits(nbytes, alone=alone) and self.has(nbytes) and self.residents < self.slot.max_residents
        )

    def spare(self, touched: Container[int]) -> list[int]:
        """Idle executors that may be told to go, the one that idles longest first."""
        return [
            executor
            for executor, resident in self.slot.idle.items()
            if not resident.pinned and executor not in touched
        ]


class Head:
    """The first waiting job of a class that the plan has not started, and who may still overtake it."""

    __slots__ = (
        "_can_wait_for",
        "claims",
        "cls",
        "lane",
        "n",
        "need",
        "remaining",
        "taken",
        "view",
        "waiting",
    )

    def __init__(self, view: View, cls: JobClass) -> None:
        self.view = view
        self.cls = cls
        self.lane = view.floor.reach(cls)
        #: What a new executor must be granted; None where that is unknown.
        self.need = view.need_bytes(cls)
        self._can_wait_for: dict[str, bool] = {}
        line = view.lines[cls]
        self.n = line.head
        self.remaining = view.bypass.left(self.n)
        self.taken = 0
        self.waiting = len(line)
        #: Bytes that are kept for it while others leave.
        self.claims: list[tuple[Room, int]] = []

    def may_use(self, room: Room, nbytes: int) -> bool:
        """Whether one more executor may load or run there for it, were the bytes free."""
        return room.admits(nbytes, alone=self.cls.alone)

    def peek(self, count: int) -> list[int]:
        """The next jobs of the class."""
        return self.view.lines[self.cls].peek(count, self.taken)

    def advance(self, count: int) -> None:
        """So many were started."""
        self.taken += count
        self.waiting -= count
        if self.waiting:
            self.n = self.peek(1)[0]
            self.remaining = self.view.bypass.left(self.n)

    def claim(self, room: Room, nbytes: int) -> None:
        """Keep bytes that are coming for it."""
        room.claimed += nbytes
        self.claims.append((room, nbytes))

    def unclaim(self) -> None:
        """Give up what is kept for it."""
        for room, nbytes in self.claims:
            room.claimed -= nbytes
        self.claims.clear()

    def times_passed(self, cls: JobClass, ns: Sequence[int]) -> int:
        """How many of these would overtake it."""
        if not self.waiting or self.cls is cls or cls.priority > self.cls.priority:
            return 0
        if cls.priority < self.cls.priority:
            return len(ns)
        return sum(n > self.n for n in ns)

    def is_harmed(self, rooms: Sequence[Room], grant_bytes: int, opens: int) -> bool:
        """Whether an executor at work in these rooms keeps it from one of them. `opens` is 1 where
        the executor was not at work before."""
        for room in rooms:
            if (
                room.slot in self.lane
                and is_harmed(self.cls, grant_bytes, is_full=room.left - opens <= 0)
                and self._waits_for(room.slot)
                and self.view.bypass.is_kept(self.n, room.slot.device.id)
            ):
                return True
        return False

    def _waits_for(self, slot: Slot) -> bool:
        device_id = slot.device.id
        known = self._can_wait_for.get(device_id)
        if known is None:
            known = self._can_wait_for[device_id] = self.view.can_wait_for(self.cls, slot)
        return known


@dataclass(slots=True)
class Way:
    """A way to let a job start: executors that must go with their bytes, and what is then kept for it."""

    victims: dict[int, int]
    claims: list[tuple[Room, int]]

    def cost(self) -> tuple[int, int, str]:
        """The less is sent away the better."""
        return sum(self.victims.values()), len(self.victims), self.claims[0][0].slot.device.id
