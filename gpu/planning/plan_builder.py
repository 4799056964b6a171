"""Pure: a plan under construction: the actions chosen so far, and the limits on overtaking."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

from gpu.job_class import JobClass
from gpu.planning.actions import EvictAction, LoadAction, PlanAction, StartAction, WaitReason
from gpu.planning.candidate import Candidate, Rank
from gpu.scheduling.capacity import EXCLUSIVE, DeviceCapacity
from gpu.scheduling.capacity_snapshot import CapacityOverlay, PoolIndexes
from gpu.scheduling.limits import PlannedConcurrency
from gpu.scheduling.outlook import Outlook, OvertakenJob
from gpu.scheduling.resident_executor import ResidentExecutor
from gpu.scheduling.scheduler_state import SchedulerState
from gpu.scheduling.tenant_shares import PlanShares


class OvertakeGuard(Protocol):
    """Protects what a waiting job is going to get: limits how many others may take it first."""

    #: The protected job.
    candidate: Candidate

    def count_overtaking(self, move: Move) -> int:
        """Return how many of the move's jobs would delay the protected job."""
        ...

    def overtakes_left(self, move: Move) -> int:
        """Return how many jobs of such a move may still delay it."""
        ...

    def apply(self, move: Move) -> None:
        """Update the guard for a move that is part of the plan now."""
        ...

    def device_ids(self) -> tuple[str, ...]:
        """Return the devices that the job is going to get; none while they are not decided."""
        ...


class Move:
    """Jobs of one class that one executor is going to run on some devices."""

    __slots__ = (
        "_ranks",
        "candidate",
        "capacities",
        "is_cold",
        "job_numbers",
        "nbytes",
        "saves_load",
        "starts_executor",
    )

    def __init__(
        self,
        candidate: Candidate,
        job_numbers: list[int],
        capacities: Sequence[DeviceCapacity],
        nbytes: int,
        *,
        starts_executor: int = 1,
        is_cold: bool = False,
        saves_load: bool = False,
    ) -> None:
        """Describe a move that is not part of the plan yet."""
        self.candidate = candidate
        #: In order of their starts; the builder shortens the list to the jobs that the guards allow.
        self.job_numbers = job_numbers
        #: Of each device on which the executor runs.
        self.capacities = capacities
        #: Bytes that the executor holds on each device while it runs.
        self.nbytes = nbytes
        #: 1 where the executor was not at work before, else 0.
        self.starts_executor = starts_executor
        #: A new executor loads for it.
        self.is_cold = is_cold
        #: It is made out of order because it saves a load.
        self.saves_load = saves_load
        self._ranks: list[Rank] = []

    def ranks(self) -> list[Rank]:
        """Return the ranks of its jobs, computed once."""
        if len(self._ranks) < len(self.job_numbers):
            self._ranks = [self.candidate.rank_of(job_number) for job_number in self.job_numbers]
        return self._ranks[: len(self.job_numbers)]


class PlanBuilder:
    """The actions of a plan so far, and what they leave of capacities, limits and shares.

    The state is only read: every effect of an action is kept here until the plan is carried out.
    """

    def __init__(self, state: SchedulerState, now: float) -> None:
        """Start a plan without actions for the time `now`, in seconds of the plan's clock."""
        self.state = state
        self.now = now
        #: The capacities after the actions so far.
        self.overlay = CapacityOverlay(state.capacity_table)
        #: In the order in which they must be carried out.
        self.actions: list[PlanAction] = []
        #: Why jobs of a class wait.
        self.reasons: dict[JobClass, WaitReason] = {}
        #: Guards to consult before a move, by whether it is on the GPU pool.
        self.guards: dict[bool, list[OvertakeGuard]] = {True: [], False: []}
        #: Executors that this plan used: the jobs assigned to each, 0 for an evicted one.
        self.used_executors: dict[int, int] = {}
        #: When to plan again at the latest; inf: when something happens.
        self.replan_at = math.inf
        #: What runs of each handler, including what this plan adds.
        self.concurrency = PlannedConcurrency(state.limits)
        #: The tenants' shares, including what this plan charges them.
        self.plan_shares = PlanShares(state.tenant_shares, state.residency)
        self._with_kept_devices = set(state.overtakes.kept_devices)

    def pool(self, candidate: Candidate) -> PoolIndexes:
        """Return the capacity indexes of the devices that may run the class."""
        return self.overlay.pool(candidate.is_gpu)

    def capacities_of(self, resident: ResidentExecutor) -> list[DeviceCapacity]:
        """Return the remaining capacities of an executor's devices."""
        slots = self.state.residency.slots
        return [self.overlay.capacity(slots[each]) for each in resident.devices]

    def is_gathering_batch(self, candidate: Candidate) -> bool:
        """Return whether the candidate's next batch waits for more jobs, and plan again at its deadline."""
        deadline = candidate.batch_deadline
        if deadline <= self.now:
            return False
        self.replan_at = min(self.replan_at, deadline)
        return True

    # Limits on overtaking.

    def allowed_jobs(self, move: Move) -> list[int]:
        """Return the first jobs of the move, as many as no guard objects to."""
        job_numbers = move.job_numbers
        for guard, count in self._overtaken(move):
            allowed = max(0, guard.overtakes_left(move))
            if count > allowed:
                # The first of its jobs may rank before the protected one.
                job_numbers = job_numbers[: max(0, len(job_numbers) - (count - allowed))]
        return job_numbers

    def _overtaken(self, move: Move) -> Iterator[tuple[OvertakeGuard, int]]:
        """Yield the guards of other jobs that the move would delay, with the number of its jobs that do."""
        for guard in self.guards[move.candidate.is_gpu]:
            if guard.candidate.waiting_count and guard.candidate is not move.candidate:
                count = guard.count_overtaking(move)
                if count:
                    yield guard, count

    def _record_overtaking(self, move: Move) -> tuple[OvertakenJob, ...]:
        """Apply the move to all guards; return the jobs that it overtakes, and devices to keep for them."""
        overtaken: list[OvertakenJob] = []
        for guard, count in self._overtaken(move):
            guard.candidate.overtakes_left -= count
            overtaken.append(OvertakenJob(guard.candidate.job_number, count, guard.device_ids()))
        for guard in self.guards[move.candidate.is_gpu]:
            guard.apply(move)
            if (
                guard.candidate.overtakes_left <= 0
                and guard.candidate.job_number not in self._with_kept_devices
                and (ids := guard.device_ids())
            ):
                # These stay its devices whatever starts now.
                self._with_kept_devices.add(guard.candidate.job_number)
                overtaken.append(OvertakenJob(guard.candidate.job_number, 0, ids))
        return tuple(overtaken)

    # Moves.

    def start(self, move: Move, resident: ResidentExecutor) -> bool:
        """Assign the move's allowed jobs to a warm executor; False, with nothing changed, where none is."""
        move.job_numbers = job_numbers = self.allowed_jobs(move)
        if not job_numbers:
            return False
        candidate, executor = move.candidate, resident.executor
        overtaken = self._record_overtaking(move)
        expected_end = candidate.expected_end(len(job_numbers), is_cold=False)
        if not move.starts_executor:
            expected_end += max(0.0, resident.expected_end - self.now)
        self.actions.append(
            StartAction(executor, candidate.job_class, tuple(job_numbers), Outlook(expected_end, overtaken))
        )
        if move.starts_executor:
            self._use_capacity(move, resident, expected_end)
        self.used_executors[executor] = self.used_executors.get(executor, 0) + len(job_numbers)
        self.plan_shares.charge(candidate.job_class, len(job_numbers), is_cold=False)
        self._advance(candidate, len(job_numbers))
        return True

    def _use_capacity(self, move: Move, resident: ResidentExecutor, expected_end: float) -> None:
        """Subtract from its devices what an idle executor takes when it resumes work."""
        charge = self.state.ledger.charge_bytes(resident.executor)
        extra = self.state.ledger.extra_bytes(resident.executor)
        for capacity in move.capacities:
            editable = self.overlay.editable(capacity.slot)
            editable.places -= 1
            editable.free_bytes -= extra
            if not resident.is_pinned:
                editable.evictable -= 1
                editable.evictable_bytes -= charge
            if resident.exclusive or move.candidate.job_class.alone_on_device:
                editable.exclusive_executor = resident.executor
            editable.planned_ends += ((expected_end, 0 if resident.is_pinned else charge + extra),)
            self.overlay.update(editable)
        self.concurrency.add_executor(move.candidate.job_class.handler)

    def load(self, move: Move) -> None:
        """Start a new executor with the first job of the move and the jobs that run together with it.

        The caller has checked that the first job is allowed; the others are dropped where they are not.
        """
        candidate, job_class = move.candidate, move.candidate.job_class
        if len(move.job_numbers) > 1:
            move.job_numbers = self.allowed_jobs(move) or move.job_numbers[:1]
        overtaken = self._record_overtaking(move)
        is_alone = candidate.need_bytes is None
        expected_end = candidate.expected_end(len(move.job_numbers), is_cold=True)
        for capacity in move.capacities:
            editable = self.overlay.editable(capacity.slot)
            editable.places -= 1
            editable.free_bytes -= move.nbytes
            editable.resident_count += 1
            if is_alone or job_class.alone_on_device or (editable.has_totals_only and move.nbytes > 0):
                editable.exclusive_executor = EXCLUSIVE
            editable.planned_ends += ((expected_end, move.nbytes),)
            self.overlay.update(editable)
        ids = tuple(capacity.slot.device.id for capacity in move.capacities)
        job_number, *extra_numbers = move.job_numbers
        outlook = Outlook(expected_end, overtaken)
        self.actions.append(
            LoadAction(job_class, job_number, ids, move.nbytes, is_alone, outlook, tuple(extra_numbers))
        )
        self.concurrency.add_executor(job_class.handler)
        self.plan_shares.charge(job_class, len(move.job_numbers), is_cold=True)
        self._advance(candidate, len(move.job_numbers))

    def _advance(self, candidate: Candidate, count: int) -> None:
        self.concurrency.add_jobs(candidate.job_class.handler, count)
        candidate.advance(count)

    def evict(self, executor: int, nbytes: int) -> None:
        """Evict an idle executor; its `nbytes` on each of its devices become free once it has left."""
        self.used_executors[executor] = 0
        self.actions.append(EvictAction(executor))
        for each in self.state.executors[executor].devices:
            capacity = self.overlay.editable(self.state.residency.slots[each])
            capacity.pending_bytes += nbytes
            capacity.leaving_count += 1
            capacity.evictable -= 1
            capacity.evictable_bytes -= nbytes
            self.overlay.update(capacity)

    def claim(self, candidate: Candidate, capacity: DeviceCapacity, nbytes: int) -> None:
        """Claim bytes of a device, also ones that are still being freed, for a candidate."""
        editable = self.overlay.editable(capacity.slot)
        editable.claimed_bytes += nbytes
        self.overlay.update(editable)
        candidate.claims += ((editable, nbytes),)

    def release_claims(self, candidate: Candidate) -> None:
        """Release what is claimed for a candidate."""
        for capacity, nbytes in candidate.claims:
            capacity.claimed_bytes -= nbytes
            self.overlay.update(capacity)
        candidate.claims = ()
