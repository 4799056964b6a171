"""Pure: what a blocked job is to get and when, and how often others may keep it from that."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nsmallest

from gpu.planning.candidate import Candidate
from gpu.planning.plan_builder import Move, PlanBuilder
from gpu.scheduling.capacity import DeviceCapacity
from gpu.scheduling.resident_executor import ResidentExecutor

#: An expected end, and what is free on a device from then on: bytes and places.
_End = tuple[float, int, int]


@dataclass(slots=True)
class Left:
    """What is left beside a reservation on one of its devices when it begins."""

    nbytes: int
    places: int


class Front:
    """One of the first who wait: whoever stands behind it and takes what it could have overtakes it."""

    def __init__(self, turn: PlanBuilder, head: Candidate) -> None:
        self.head = head
        self._turn = turn

    def times(self, move: Move) -> int:
        """How many of the move's jobs stand behind it and take a place, or bytes, where it waits for some."""
        head = self.head
        if self._turn.concurrency.is_at_limit(head.job_class) or not any(
            self._is_harmed(move, room) for room in move.capacities
        ):
            return 0
        return sum(rank > head.rank for rank in move.ranks())

    def _is_harmed(self, move: Move, room: DeviceCapacity) -> bool:
        is_full = room.places - move.starts_executor <= 0
        takes_bytes = move.nbytes > 0 and self.head.need_bytes != 0
        return (is_full or takes_bytes) and self.head.fits_when_empty(room.slot)

    def left(self, move: Move) -> int:
        """How many may still overtake it."""
        return self.head.overtakes_left

    def take(self, move: Move) -> None:
        """Nothing is kept for it yet."""

    def device_ids(self) -> tuple[str, ...]:
        """None is chosen yet."""
        return ()


class Hold:
    """The devices that a blocked head gets, and when. Others start there who surely end before or fit in
    beside it; those who are only likely to, or of whom nobody knows, so often as it may be overtaken."""

    def __init__(self, head: Candidate, at: float, lefts: dict[str, Left]) -> None:
        self.head = head
        #: When the head is expected to start; inf where that is unknown.
        self.at = at
        self.lefts = lefts

    def times(self, move: Move) -> int:
        """How many of the move's jobs may keep the head waiting beyond its time."""
        for room in move.capacities:
            left = self.lefts.get(room.slot.device.id)
            if left is not None and (left.places < 1 or 0 < move.nbytes > left.nbytes):
                return 0 if self._is_sure(move) else len(move.job_numbers)
        return 0

    def left(self, move: Move) -> int:
        """None, where they are known to take longer."""
        head, ends = move.candidate, move.candidate.expected_end(len(move.job_numbers), is_cold=move.is_cold)
        if move.saves_load or head.run_s is None or math.isinf(self.at) or ends <= self.at:
            return self.head.overtakes_left
        return 0

    def take(self, move: Move) -> None:
        """The move is made: what is left beside the head is less."""
        if self._is_sure(move):
            return
        for room in move.capacities:
            left = self.lefts.get(room.slot.device.id)
            if left is not None:
                left.nbytes -= max(0, move.nbytes)
                left.places -= 1

    def device_ids(self) -> tuple[str, ...]:
        """The devices."""
        return tuple(self.lefts)

    def _is_sure(self, move: Move) -> bool:
        return move.candidate.latest_end(len(move.job_numbers), is_cold=move.is_cold) <= self.at < math.inf


class Reservation:
    """A guard that is worked out when somebody first asks: most often nobody could start anyhow."""

    def __init__(self, turn: PlanBuilder, head: Candidate) -> None:
        self.head = head
        self._turn = turn
        self._hold: Hold | None = None

    @property
    def hold(self) -> Hold:
        """What the head gets."""
        if self._hold is None:
            self._hold = reserve(self._turn, self.head)
        return self._hold

    def times(self, move: Move) -> int:
        """See `Hold`."""
        return self.hold.times(move)

    def left(self, move: Move) -> int:
        """See `Hold`."""
        return self.hold.left(move)

    def take(self, move: Move) -> None:
        """See `Hold`."""
        self.hold.take(move)

    def device_ids(self) -> tuple[str, ...]:
        """See `Hold`."""
        return self.hold.device_ids()


def reserve(turn: PlanBuilder, head: Candidate) -> Hold:
    """The devices that are expected to be free for the head first: those kept for it, where there are any."""
    if head.claims:
        left = {
            room.slot.device.id: Left(room.free_after_eviction, room.places - 1) for room, _ in head.claims
        }
        return Hold(head, turn.now, left)
    slots = turn.state.residency.slots
    kept = turn.state.overtakes.kept_devices.get(head.job_number)
    rooms = [turn.overlay.capacity(slots[each]) for each in kept] if kept else _rooms(turn, head)
    options = (option for room in rooms if (option := _option(turn, head, room)) is not None)
    first = nsmallest(head.device_count, options, key=lambda option: option[:3])
    if len(first) < head.device_count:
        return Hold(head, math.inf, {})
    at = first[-1][0]
    lefts = {room.slot.device.id: _left(turn, head, room, at) for *_, room in first}
    return Hold(head, at, lefts)


def _rooms(turn: PlanBuilder, head: Candidate) -> Iterator[DeviceCapacity]:
    for shelf in turn.pool(head).values():
        yield from shelf.capacities.values()


def _option(
    turn: PlanBuilder, head: Candidate, room: DeviceCapacity
) -> tuple[float, int, int, DeviceCapacity] | None:
    """When the head could start in a room, how much must end there before, and its place."""
    if not head.fits_when_empty(room.slot) or (
        head.is_device_restricted and head.avoids(room.slot.device.id)
    ):
        return None
    need = head.need_for_capacity(room.slot.device.cap_bytes)
    nbytes, places, at, count = room.free_after_eviction, room.places, turn.now, 0
    is_quiet = room.is_idle
    for end, freed, opened in _ends(turn, room):
        if _fits(head, room, need, nbytes, places, is_quiet):
            break
        at = max(at, end)
        nbytes, places, count = nbytes + freed, places + opened, count + 1
        is_quiet = places >= room.slot.max_executors
    return at, count, room.slot.order, room


def _fits(head: Candidate, room: DeviceCapacity, need: int, nbytes: int, places: int, is_quiet: bool) -> bool:
    if head.job_class.alone or (need > 0 and room.exclusive_executor is not None):
        return is_quiet and nbytes >= need
    return places > 0 and (need <= 0 or nbytes >= need)


def _left(turn: PlanBuilder, head: Candidate, room: DeviceCapacity, at: float) -> Left:
    """What is left beside the head at that time; nothing where it runs alone."""
    need = head.need_for_capacity(room.slot.device.cap_bytes)
    nbytes, places = room.free_after_eviction, room.places
    for end, freed, opened in _ends(turn, room):
        if end > at or (math.isinf(at) and _fits(head, room, need, nbytes, places, is_quiet=False)):
            break
        nbytes, places = nbytes + freed, places + opened
    if head.job_class.alone or head.need_bytes is None:
        return Left(0, 0)
    return Left(nbytes - max(0, need), places - 1)


def _ends(turn: PlanBuilder, room: DeviceCapacity) -> list[_End]:
    """What ends in a room, the first one first."""
    ends = [(end, nbytes, 1) for end, nbytes in room.planned_ends]
    for resident in room.slot.residents.values():
        if resident.is_busy:
            ends.append((_end(turn, resident), _freed(turn, resident), 1))
    ends.sort()
    return ends


def _end(turn: PlanBuilder, resident: ResidentExecutor) -> float:
    return max(turn.now, resident.expected_end)


def _freed(turn: PlanBuilder, resident: ResidentExecutor) -> int:
    if resident.is_pinned:
        return 0
    return turn.state.ledger.charge_bytes(resident.executor)
