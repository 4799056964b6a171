"""Pure: what a blocked job gets and when, and how often other jobs may delay it.

A reservation is that of EASY backfilling (Lifka, "The ANL/IBM SP scheduling system", 1995): only the first
blocked job has one, at the earliest time at which running jobs should have freed enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nsmallest

from gpu.planning.candidate import Candidate
from gpu.planning.plan_builder import Move, PlanBuilder
from gpu.scheduling.capacity import DeviceCapacity
from gpu.scheduling.resident_executor import ResidentExecutor

#: The time of an expected end, and the bytes and places that it frees on a device.
_ExpectedEnd = tuple[float, int, int]


@dataclass(slots=True)
class Remaining:
    """What remains beside a reservation on one of its devices when the reservation begins."""

    nbytes: int
    places: int


class CandidateGuard:
    """Guards one of the first waiting jobs: a job behind it overtakes it by taking what it could have."""

    def __init__(self, builder: PlanBuilder, candidate: Candidate) -> None:
        """Guard this candidate."""
        self.candidate = candidate
        self._builder = builder

    def count_overtaking(self, move: Move) -> int:
        """Return how many of the move's jobs rank behind it and take a place, or bytes, that it could use."""
        candidate = self.candidate
        if self._builder.concurrency.is_at_limit(candidate.job_class) or not any(
            self._is_harmed(move, capacity) for capacity in move.capacities
        ):
            return 0
        return sum(rank > candidate.rank for rank in move.ranks())

    def _is_harmed(self, move: Move, capacity: DeviceCapacity) -> bool:
        """Return whether the move takes something of a device that the candidate could use."""
        is_full = capacity.places - move.starts_executor <= 0
        takes_bytes = move.nbytes > 0 and self.candidate.need_bytes != 0
        return (is_full or takes_bytes) and self.candidate.fits_when_empty(capacity.slot)

    def overtakes_left(self, move: Move) -> int:
        """Return how many jobs may still overtake it."""
        return self.candidate.overtakes_left

    def apply(self, move: Move) -> None:
        """Do nothing: no devices are reserved yet."""

    def device_ids(self) -> tuple[str, ...]:
        """Return no devices: none are chosen yet."""
        return ()


class Reservation:
    """The devices reserved for a blocked job, and when it gets them.

    Other jobs start there freely if they end before that time in any case, or fit beside the job. Jobs that
    only probably end before it, or whose duration is unknown, start there as often as the job may still be
    overtaken.
    """

    def __init__(self, candidate: Candidate, starts_at: float, remaining: dict[str, Remaining]) -> None:
        """Reserve the devices in `remaining`; empty where the candidate can't start on enough devices."""
        self.candidate = candidate
        #: When the job is expected to start; inf where that is unknown.
        self.starts_at = starts_at
        #: What other jobs may use of each reserved device at that time.
        self.remaining = remaining

    def count_overtaking(self, move: Move) -> int:
        """Return how many of the move's jobs may delay the job beyond its time."""
        for capacity in move.capacities:
            remaining = self.remaining.get(capacity.slot.device.id)
            if remaining is not None and (remaining.places < 1 or 0 < move.nbytes > remaining.nbytes):
                return 0 if self._is_sure(move) else len(move.job_numbers)
        return 0

    def overtakes_left(self, move: Move) -> int:
        """Return how many jobs may still delay it; 0 where the move is expected to take longer."""
        candidate, expected_end = (
            move.candidate,
            move.candidate.expected_end(len(move.job_numbers), is_cold=move.is_cold),
        )
        if (
            move.saves_load
            or candidate.run_s is None
            or math.isinf(self.starts_at)
            or expected_end <= self.starts_at
        ):
            return self.candidate.overtakes_left
        return 0

    def apply(self, move: Move) -> None:
        """Subtract what the move takes from what remains beside the job."""
        if self._is_sure(move):
            return
        for capacity in move.capacities:
            remaining = self.remaining.get(capacity.slot.device.id)
            if remaining is not None:
                remaining.nbytes -= max(0, move.nbytes)
                remaining.places -= 1

    def device_ids(self) -> tuple[str, ...]:
        """Return the reserved devices."""
        return tuple(self.remaining)

    def _is_sure(self, move: Move) -> bool:
        """Return whether the limits of the move's jobs end them before the reservation begins."""
        return (
            move.candidate.latest_end(len(move.job_numbers), is_cold=move.is_cold)
            <= self.starts_at
            < math.inf
        )


class LazyReservation:
    """A guard whose reservation is computed on first use: most often no other job could start anyway."""

    def __init__(self, builder: PlanBuilder, candidate: Candidate) -> None:
        self.candidate = candidate
        self._builder = builder
        self._reservation: Reservation | None = None

    @property
    def reservation(self) -> Reservation:
        """What is reserved for the candidate."""
        if self._reservation is None:
            self._reservation = make_reservation(self._builder, self.candidate)
        return self._reservation

    def count_overtaking(self, move: Move) -> int:
        """See `Reservation`."""
        return self.reservation.count_overtaking(move)

    def overtakes_left(self, move: Move) -> int:
        """See `Reservation`."""
        return self.reservation.overtakes_left(move)

    def apply(self, move: Move) -> None:
        """See `Reservation`."""
        self.reservation.apply(move)

    def device_ids(self) -> tuple[str, ...]:
        """See `Reservation`."""
        return self.reservation.device_ids()


def make_reservation(builder: PlanBuilder, candidate: Candidate) -> Reservation:
    """Reserve the devices that should be free first, or those already kept or claimed for the job."""
    if candidate.claims:
        remaining = {
            capacity.slot.device.id: Remaining(capacity.free_after_eviction, capacity.places - 1)
            for capacity, _ in candidate.claims
        }
        return Reservation(candidate, builder.now, remaining)
    slots = builder.state.residency.slots
    kept_ids = builder.state.overtakes.kept_devices.get(candidate.job_number)
    capacities = (
        [builder.overlay.capacity(slots[each]) for each in kept_ids]
        if kept_ids
        else _capacities(builder, candidate)
    )
    options = (
        option
        for capacity in capacities
        if (option := _earliest_start(builder, candidate, capacity)) is not None
    )
    earliest = nsmallest(candidate.device_count, options, key=lambda option: option[:3])
    if len(earliest) < candidate.device_count:
        return Reservation(candidate, math.inf, {})
    starts_at = earliest[-1][0]
    remaining_by_device = {
        capacity.slot.device.id: _remaining(builder, candidate, capacity, starts_at)
        for *_, capacity in earliest
    }
    return Reservation(candidate, starts_at, remaining_by_device)


def _capacities(builder: PlanBuilder, candidate: Candidate) -> Iterator[DeviceCapacity]:
    for index in builder.pool(candidate).values():
        yield from index.capacities.values()


def _earliest_start(
    builder: PlanBuilder, candidate: Candidate, capacity: DeviceCapacity
) -> tuple[float, int, int, DeviceCapacity] | None:
    """Return when the candidate could start on a device.

    The tuple sorts: start, number of runs that must end there before, order of the device, its capacity.
    """
    if not candidate.fits_when_empty(capacity.slot) or (
        candidate.is_device_restricted and candidate.avoids(capacity.slot.device.id)
    ):
        return None
    need_bytes = candidate.need_for_capacity(capacity.slot.device.cap_bytes)
    nbytes, places, starts_at, count = capacity.free_after_eviction, capacity.places, builder.now, 0
    is_quiet = capacity.is_idle
    for end, freed, opened in _expected_ends(builder, capacity):
        if _fits(candidate, capacity, need_bytes, nbytes, places, is_quiet):
            break
        starts_at = max(starts_at, end)
        nbytes, places, count = nbytes + freed, places + opened, count + 1
        is_quiet = places >= capacity.slot.max_executors
    return starts_at, count, capacity.slot.order, capacity


def _fits(
    candidate: Candidate, capacity: DeviceCapacity, need_bytes: int, nbytes: int, places: int, is_quiet: bool
) -> bool:
    """Return whether the candidate could start with these bytes and places free; `is_quiet`: nothing runs."""
    if candidate.job_class.alone_on_device or (need_bytes > 0 and capacity.exclusive_executor is not None):
        return is_quiet and nbytes >= need_bytes
    return places > 0 and (need_bytes <= 0 or nbytes >= need_bytes)


def _remaining(
    builder: PlanBuilder, candidate: Candidate, capacity: DeviceCapacity, starts_at: float
) -> Remaining:
    """Return what remains beside the candidate at that time; nothing where it runs alone."""
    need_bytes = candidate.need_for_capacity(capacity.slot.device.cap_bytes)
    nbytes, places = capacity.free_after_eviction, capacity.places
    for end, freed, opened in _expected_ends(builder, capacity):
        if end > starts_at or (
            math.isinf(starts_at) and _fits(candidate, capacity, need_bytes, nbytes, places, is_quiet=False)
        ):
            break
        nbytes, places = nbytes + freed, places + opened
    if candidate.job_class.alone_on_device or candidate.need_bytes is None:
        return Remaining(0, 0)
    return Remaining(nbytes - max(0, need_bytes), places - 1)


def _expected_ends(builder: PlanBuilder, capacity: DeviceCapacity) -> list[_ExpectedEnd]:
    """Return the expected ends on a device, the earliest first."""
    ends = [(end, nbytes, 1) for end, nbytes in capacity.planned_ends]
    for resident in capacity.slot.residents.values():
        if resident.is_busy:
            ends.append((_expected_end(builder, resident), _freed_bytes(builder, resident), 1))
    ends.sort()
    return ends


def _expected_end(builder: PlanBuilder, resident: ResidentExecutor) -> float:
    return max(builder.now, resident.expected_end)


def _freed_bytes(builder: PlanBuilder, resident: ResidentExecutor) -> int:
    """Return what the end of a run frees, once its executor is evicted: nothing for a pinned one."""
    if resident.is_pinned:
        return 0
    return builder.state.ledger.charge_bytes(resident.executor)
