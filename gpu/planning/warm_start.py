"""Pure: jobs for executors that have loaded the right thing."""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush

from gpu.job_class import JobClass
from gpu.planning.candidate import Candidate
from gpu.planning.plan_builder import Move, PlanBuilder
from gpu.scheduling.resident_executor import ResidentExecutor

#: Going out of turn must spare a load of at least this share of the run.
GAIN_SHARE = 0.1
#: Who waits for an executor to be free looks again after so many seconds at the earliest.
REPLAN_MIN_S = 0.02


class WarmStarts:
    """The warm executors of each class as a plan goes on."""

    def __init__(self, turn: PlanBuilder) -> None:
        self._builder = turn
        #: Idle ones that suit the class, the one used last at the end.
        self._idle: dict[JobClass, list[ResidentExecutor]] = {}
        #: Those at work that may be handed more, the one with most room first.
        self._by_free_places: dict[JobClass, list[tuple[int, int]]] = {}

    def saves_load(self, head: Candidate) -> bool:
        """Whether a warm start is worth going out of turn for: it spares a load that is long for the run.
        So it does as far as nobody knows better."""
        view = self._builder.state
        load_s = view.time_estimates.load_s(head.job_class.key)
        if load_s is None or self._stage_depth(head) > 1:
            return True
        run_s = view.time_estimates.run_mean_s(head.job_class)
        return load_s > 0 and (run_s is None or load_s >= GAIN_SHARE * run_s)

    def has_executor(self, head: Candidate) -> bool:
        """Whether an executor lives that may take a job of the head now."""
        floor, key = self._builder.state.residency, head.job_class.key
        if key in floor.idle_by_key or key in floor.prewarmed:
            return True
        return self._stage_depth(head) > 1 and key in floor.by_key

    def is_sooner(self, head: Candidate, wait_factor: float, reload_cost_s: float) -> bool:
        """Whether the last one waiting of the class may expect a warm executor before so many times what a
        new one would cost: its load, and what loading others again takes that go for it."""
        turn, view, job_class = self._builder, self._builder.state, head.job_class
        of_key = view.residency.by_key.get(job_class.key)
        load_s, run_s = view.time_estimates.load_s(job_class.key), view.time_estimates.run_mean_s(job_class)
        if of_key is None or not load_s or run_s is None:
            return False
        remaining_s = [
            self._remaining_s(each, run_s)
            for each in of_key.values()
            if each.executor not in turn.used_executors
            and view.memory_needs.is_granted_enough(each, job_class)
        ]
        if not remaining_s:
            return False
        runs = -(-head.waiting_count // head.jobs_per_run)
        wait_s = min(remaining_s) + (runs - 1) * run_s / len(remaining_s)
        if wait_s > wait_factor * (load_s + reload_cost_s):
            return False
        # It may not come as expected, and then nobody would ask.
        turn.replan_at = min(turn.replan_at, turn.now + max(REPLAN_MIN_S, min(remaining_s)))
        return True

    def _remaining_s(self, resident: ResidentExecutor, run_s: float) -> float:
        """When a warm executor is expected to be free. One that idles has found its device at work."""
        slots, executors = self._builder.state.residency.slots, [resident]
        if not resident.is_busy:
            others = [each for device_id in resident.devices for each in slots[device_id].residents.values()]
            executors = [each for each in others if each.is_busy]
        view, now = self._builder.state, self._builder.now
        return min(
            (view.time_estimates.remaining_s(each, now, run_s) for each in executors), default=math.inf
        )

    def start(self, head: Candidate, *, saves_load: bool = False) -> bool:
        """Hand the next jobs of the head to a warm executor."""
        turn, job_class, floor = self._builder, head.job_class, self._builder.state.residency
        if job_class.key not in floor.by_key or turn.is_gathering_batch(head):
            return False
        depth = self._stage_depth(head)
        if (
            job_class.key in floor.idle_by_key
            and not turn.concurrency.is_at_limit(job_class)
            and self._use_idle(head, depth, saves_load)
        ):
            return True
        if depth > 1 and self._stage(head, depth):
            return True
        return job_class.key in floor.prewarmed and self._join_loading(head)

    def idle_executors(self, job_class: JobClass) -> list[ResidentExecutor]:
        """Idle executors that are granted enough for the class and not yet used by this plan."""
        turn, known = self._builder, self._idle.get(job_class)
        if known is None:
            view = turn.state
            of_key = view.residency.idle_by_key.get(job_class.key, {})
            known = [
                each
                for each in of_key.values()
                if not each.is_worn_out and view.memory_needs.is_granted_enough(each, job_class)
            ]
            self._idle[job_class] = known
        while known and known[-1].executor in turn.used_executors:
            known.pop()
        return known

    def _stage_depth(self, head: Candidate) -> int:
        """How many attempts, or batches, an executor may hold."""
        job_class = head.job_class
        if head.need_bytes is None or job_class.alone_on_device or job_class.alone_in_executor:
            return 1
        slots = self._builder.state.batch_sizing.slot_count(job_class)
        return (
            slots
            if slots > 1
            else self._builder.state.limits.stage_depths.get((job_class.handler, job_class.version), 1)
        )

    def _free_places(self, head: Candidate, resident: ResidentExecutor, depth: int) -> int:
        """How many jobs of the head it may be handed now."""
        planned_count = self._builder.used_executors.get(resident.executor, 0)
        if not head.batch_max:
            return resident.free_places(depth) - planned_count
        assigned_count = len(resident.assigned) + planned_count
        if assigned_count and (
            resident.long_job_number is not None or -(-assigned_count // head.batch_max) >= depth
        ):
            return 0
        places = (
            head.batch_max
            if resident.max_jobs is None
            else resident.max_jobs - resident.jobs_done - assigned_count
        )
        return min(head.batch_max, places)

    def _use_idle(self, head: Candidate, depth: int, saves_load: bool) -> bool:
        """Hand jobs to an idle executor, the last used one first; short ones are shared out evenly."""
        turn = self._builder
        idle = self.idle_executors(head.job_class)
        for resident in reversed(idle):
            executor = resident.executor
            if executor in turn.used_executors:
                continue
            rooms = turn.capacities_of(resident)
            extra = turn.state.ledger.extra_bytes(executor)
            if not all(
                room.has_place_for(resident.grant_bytes)
                and room.has_free_bytes(extra)
                and head.may_run_on(room)
                for room in rooms
            ):
                continue
            # A batch is not shared out: it would be smaller for nothing.
            share = head.waiting_count if head.batch_max else -(-head.waiting_count // len(idle))
            count = int(min(self._free_places(head, resident, depth), share, self._limit_left(head)))
            move = Move(head, head.peek(count), rooms, resident.grant_bytes, saves_load=saves_load)
            if turn.start(move, resident):
                self._relist(head, resident, depth)
                return True
        return False

    def _join_loading(self, head: Candidate) -> bool:
        """Hand a job to an executor that loads for none. A wish has what it wishes by that."""
        turn, view = self._builder, self._builder.state
        for resident in view.residency.prewarmed[head.job_class.key].values():
            if (
                resident.executor in turn.used_executors
                or not view.memory_needs.is_granted_enough(resident, head.job_class)
                or head.job_class.alone_on_device
            ):
                continue
            job_numbers = head.peek(int(min(head.jobs_per_run, self._limit_left(head))))
            move = Move(
                head,
                job_numbers,
                turn.capacities_of(resident),
                resident.grant_bytes,
                starts_executor=0,
                saves_load=True,
            )
            if turn.start(move, resident):
                return True
        return False

    def _relist(self, head: Candidate, resident: ResidentExecutor, depth: int) -> None:
        heap = self._by_free_places.get(head.job_class)
        if heap is not None:
            heappush(heap, self._heap_entry(head, resident, depth))

    def _limit_left(self, head: Candidate) -> float:
        """How many of them may go at once by their handler's limit; what is staged for later is not bound."""
        is_spread = head.batch_max or self._builder.state.batch_sizing.slot_count(head.job_class) > 1
        return self._builder.concurrency.remaining(head.job_class) if is_spread else math.inf

    def _stage(self, head: Candidate, depth: int) -> bool:
        """Hand more jobs to an executor that runs, the one with most room first."""
        turn, view, job_class = self._builder, self._builder.state, head.job_class
        heap = self._by_free_places.get(job_class)
        if heap is None:
            heap = self._by_free_places[job_class] = [
                self._heap_entry(head, each, depth)
                for each in view.residency.by_key[job_class.key].values()
                if (each.state == "running" or turn.used_executors.get(each.executor))
                and view.memory_needs.is_granted_enough(each, job_class)
            ]
            heapify(heap)
        refused: list[tuple[int, int]] = []
        is_handed = False
        while heap and not is_handed:
            entry = heappop(heap)
            resident = view.executors[entry[1]]
            now = self._heap_entry(head, resident, depth)
            if now[0] >= 0:
                continue
            if now != entry:
                heappush(heap, now)
                continue
            is_handed = self._assign_more(head, resident, -entry[0])
            # One that was refused is asked again for the next job, which may stand elsewhere.
            refused.append(self._heap_entry(head, resident, depth))
        for entry in refused:
            heappush(heap, entry)
        return is_handed

    def _assign_more(self, head: Candidate, resident: ResidentExecutor, count: int) -> bool:
        count = int(min(count, self._limit_left(head)))
        if count < 1 or head.waiting_count < head.batch_max:
            # Only full batches are staged: by then there may be more.
            return False
        rooms = self._builder.capacities_of(resident)
        if not all(room.may_assign_more(resident) for room in rooms) or _runs_alone(resident):
            return False
        move = Move(head, head.peek(count), rooms, resident.grant_bytes, starts_executor=0, saves_load=True)
        return self._builder.start(move, resident)

    def _heap_entry(self, head: Candidate, resident: ResidentExecutor, depth: int) -> tuple[int, int]:
        return -self._free_places(head, resident, depth), resident.executor


def _runs_alone(resident: ResidentExecutor) -> bool:
    return any(
        job_class.alone_on_device or job_class.alone_in_executor for job_class in resident.assigned.values()
    )
