"""Pure: one plan in the making: what it has chosen so far, and who may go before whom."""

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


class Guard(Protocol):
    """Something that a waiting job is to get, from which others may keep it only so often."""

    head: Candidate

    def times(self, move: Move) -> int:
        """How many of the move's jobs would keep it from that."""
        ...

    def left(self, move: Move) -> int:
        """How many jobs of such a move may."""
        ...

    def take(self, move: Move) -> None:
        """The move is made."""
        ...

    def device_ids(self) -> tuple[str, ...]:
        """Where it is to get it; none where that is open."""
        ...


class Move:
    """Jobs of a class, to be set to work in some rooms by one executor."""

    __slots__ = ("_ranks", "head", "is_gain", "loads", "nbytes", "ns", "opens", "rooms")

    def __init__(
        self,
        head: Candidate,
        ns: list[int],
        rooms: Sequence[DeviceCapacity],
        nbytes: int,
        *,
        opens: int = 1,
        loads: bool = False,
        is_gain: bool = False,
    ) -> None:
        self.head = head
        self.ns = ns
        self.rooms = rooms
        #: What the executor holds on each device while at work.
        self.nbytes = nbytes
        #: 1 where it was not at work before.
        self.opens = opens
        self.loads = loads
        #: It is made out of turn since it spares a load.
        self.is_gain = is_gain
        self._ranks: list[Rank] = []

    def ranks(self) -> list[Rank]:
        """Where its jobs stand."""
        if len(self._ranks) < len(self.ns):
            self._ranks = [self.head.rank_of(n) for n in self.ns]
        return self._ranks[: len(self.ns)]


class Turn:
    """What a plan has chosen so far."""

    def __init__(self, view: SchedulerState, now: float) -> None:
        self.view = view
        self.now = now
        self.sketch = CapacityOverlay(view.capacity_table)
        self.actions: list[PlanAction] = []
        self.reasons: dict[JobClass, WaitReason] = {}
        #: Whom to ask before a move, by lane.
        self.guards: dict[bool, list[Guard]] = {True: [], False: []}
        #: Executors that this plan handed something (how much) or told to go (0).
        self.touched: dict[int, int] = {}
        #: When to look again.
        self.look_at = math.inf
        self.concurrency = PlannedConcurrency(view.limits)
        #: What tenants have had, with what this plan gives them.
        self.standing = PlanShares(view.tenant_shares, view.residency)
        self._kept = set(view.overtakes.kept_devices)

    def lane(self, head: Candidate) -> PoolIndexes:
        """The shelves of the devices that may run the class."""
        return self.sketch.pool(head.is_gpu)

    def rooms(self, resident: ResidentExecutor) -> list[DeviceCapacity]:
        """What is left where an executor lives."""
        slots = self.view.residency.slots
        return [self.sketch.capacity(slots[each]) for each in resident.devices]

    def gathers(self, head: Candidate) -> bool:
        """Whether the head's next batch waits for more jobs."""
        until = head.batch_deadline
        if until <= self.now:
            return False
        self.look_at = min(self.look_at, until)
        return True

    # Who may go before whom.

    def allowed(self, move: Move) -> list[int]:
        """The first of its jobs, as many as nobody need mind."""
        ns = move.ns
        for guard, times in self._passed(move):
            left = max(0, guard.left(move))
            if times > left:
                # The first ones may stand before it.
                ns = ns[: max(0, len(ns) - (times - left))]
        return ns

    def _passed(self, move: Move) -> Iterator[tuple[Guard, int]]:
        for guard in self.guards[move.head.is_gpu]:
            if guard.head.waiting_count and guard.head is not move.head:
                times = guard.times(move)
                if times:
                    yield guard, times

    def _pass(self, move: Move) -> tuple[OvertakenJob, ...]:
        passed: list[OvertakenJob] = []
        for guard, times in self._passed(move):
            guard.head.overtakes_left -= times
            passed.append(OvertakenJob(guard.head.job_number, times, guard.device_ids()))
        for guard in self.guards[move.head.is_gpu]:
            guard.take(move)
            if (
                guard.head.overtakes_left <= 0
                and guard.head.job_number not in self._kept
                and (ids := guard.device_ids())
            ):
                # Whatever starts now, these stay its devices.
                self._kept.add(guard.head.job_number)
                passed.append(OvertakenJob(guard.head.job_number, 0, ids))
        return tuple(passed)

    # Moves.

    def hand(self, move: Move, resident: ResidentExecutor) -> bool:
        """Hand as many of the jobs as may go to a warm executor; False for none."""
        move.ns = ns = self.allowed(move)
        if not ns:
            return False
        head, executor = move.head, resident.executor
        passes = self._pass(move)
        until = head.expected_end(len(ns), is_cold=False)
        if not move.opens:
            until += max(0.0, resident.expected_end - self.now)
        self.actions.append(StartAction(executor, head.job_class, tuple(ns), Outlook(until, passes)))
        if move.opens:
            self._open(move, resident, until)
        self.touched[executor] = self.touched.get(executor, 0) + len(ns)
        self.standing.charge(head.job_class, len(ns), is_cold=False)
        self._advance(head, len(ns))
        return True

    def _open(self, move: Move, resident: ResidentExecutor, until: float) -> None:
        charge = self.view.ledger.charge_bytes(resident.executor)
        extra = self.view.ledger.extra_bytes(resident.executor)
        for room in move.rooms:
            mine = self.sketch.editable(room.slot)
            mine.places -= 1
            mine.free_bytes -= extra
            if not resident.is_pinned:
                mine.evictable -= 1
                mine.evictable_bytes -= charge
            if resident.exclusive or move.head.job_class.alone:
                mine.exclusive_executor = resident.executor
            mine.planned_ends += ((until, 0 if resident.is_pinned else charge + extra),)
            self.sketch.update(mine)
        self.concurrency.add_executor(move.head.job_class.handler)

    def load(self, move: Move) -> None:
        """Start a new executor with the first of the jobs, and with what runs together with it."""
        head, cls = move.head, move.head.job_class
        if len(move.ns) > 1:
            move.ns = self.allowed(move) or move.ns[:1]
        passes = self._pass(move)
        is_alone = head.need_bytes is None
        until = head.expected_end(len(move.ns), is_cold=True)
        for room in move.rooms:
            mine = self.sketch.editable(room.slot)
            mine.places -= 1
            mine.free_bytes -= move.nbytes
            mine.resident_count += 1
            if is_alone or cls.alone or (mine.has_totals_only and move.nbytes > 0):
                mine.exclusive_executor = EXCLUSIVE
            mine.planned_ends += ((until, move.nbytes),)
            self.sketch.update(mine)
        ids = tuple(room.slot.device.id for room in move.rooms)
        n, *mates = move.ns
        outlook = Outlook(until, passes)
        self.actions.append(LoadAction(cls, n, ids, move.nbytes, is_alone, outlook, tuple(mates)))
        self.concurrency.add_executor(cls.handler)
        self.standing.charge(cls, len(move.ns), is_cold=True)
        self._advance(head, len(move.ns))

    def _advance(self, head: Candidate, count: int) -> None:
        self.concurrency.add_jobs(head.job_class.handler, count)
        head.advance(count)

    def evict(self, executor: int, nbytes: int) -> None:
        """Tell an idle executor to go."""
        self.touched[executor] = 0
        self.actions.append(EvictAction(executor))
        for each in self.view.executors[executor].devices:
            mine = self.sketch.editable(self.view.residency.slots[each])
            mine.pending_bytes += nbytes
            mine.leaving_count += 1
            mine.evictable -= 1
            mine.evictable_bytes -= nbytes
            self.sketch.update(mine)

    def claim(self, head: Candidate, room: DeviceCapacity, nbytes: int) -> None:
        """Keep bytes that are coming for a head."""
        mine = self.sketch.editable(room.slot)
        mine.claimed_bytes += nbytes
        self.sketch.update(mine)
        head.claims += ((mine, nbytes),)

    def unclaim(self, head: Candidate) -> None:
        """Give up what is kept for a head."""
        for mine, nbytes in head.claims:
            mine.claimed_bytes -= nbytes
            self.sketch.update(mine)
        head.claims = ()
