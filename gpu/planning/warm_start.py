"""Pure: jobs for executors that have already loaded the right model.

An idle executor gets jobs at once. A busy one may be assigned more than it runs (staged), which saves short
jobs the way to the coordinator and back. An executor that was prewarmed and still loads takes the first job
that comes.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush

from gpu.job_class import JobClass
from gpu.planning.candidate import Candidate
from gpu.planning.plan_builder import Move, PlanBuilder
from gpu.scheduling.resident_executor import ResidentExecutor

#: Going out of order must save a load of at least this share of the run's duration.
GAIN_SHARE = 0.1
#: Earliest time, in seconds, to plan again for a job that waits for a busy executor.
REPLAN_MIN_S = 0.02


class WarmStarts:
    """The warm executors of each class during a plan."""

    def __init__(self, builder: PlanBuilder) -> None:
        """Start without knowing any executor; each class is looked up on its first use."""
        self._builder = builder
        #: Idle executors that suit the class, the most recently used at the end.
        self._idle: dict[JobClass, list[ResidentExecutor]] = {}
        #: Heap of (-free places, executor) of busy executors: the one with most free places first.
        self._by_free_places: dict[JobClass, list[tuple[int, int]]] = {}

    def saves_load(self, candidate: Candidate) -> bool:
        """Return whether a warm start is worth going out of order: it saves a load that is long for the run.

        True while the load is unknown.
        """
        state = self._builder.state
        load_s = state.time_estimates.load_s(candidate.job_class.key)
        if load_s is None or _stage_depth(self._builder, candidate) > 1:
            return True
        run_s = state.time_estimates.run_mean_s(candidate.job_class)
        return load_s > 0 and (run_s is None or load_s >= GAIN_SHARE * run_s)

    def has_executor(self, candidate: Candidate) -> bool:
        """Return whether an executor exists that may take a job of the candidate now."""
        residency, key = self._builder.state.residency, candidate.job_class.key
        if key in residency.idle_by_key or key in residency.prewarmed:
            return True
        return _stage_depth(self._builder, candidate) > 1 and key in residency.by_key

    def is_sooner(self, candidate: Candidate, wait_factor: float, reload_cost_s: float) -> bool:
        """Return whether the last waiting job of the class should get a warm executor sooner than a new one.

        A new executor costs its load and `reload_cost_s`, the time to reload what is evicted for it; the
        comparison is with `wait_factor` times that.
        """
        builder, state, job_class = self._builder, self._builder.state, candidate.job_class
        of_key = state.residency.by_key.get(job_class.key)
        load_s, run_s = state.time_estimates.load_s(job_class.key), state.time_estimates.run_mean_s(job_class)
        if of_key is None or not load_s or run_s is None:
            return False
        remaining_s = [
            self._remaining_s(each, run_s)
            for each in of_key.values()
            if each.executor not in builder.used_executors
            and state.memory_needs.is_granted_enough(each, job_class)
        ]
        if not remaining_s:
            return False
        runs = -(-candidate.waiting_count // candidate.jobs_per_run)
        wait_s = min(remaining_s) + (runs - 1) * run_s / len(remaining_s)
        if wait_s > wait_factor * (load_s + reload_cost_s):
            return False
        # The executor may not end as expected, and then nothing else would trigger a plan.
        builder.replan_at = min(builder.replan_at, builder.now + max(REPLAN_MIN_S, min(remaining_s)))
        return True

    def _remaining_s(self, resident: ResidentExecutor, run_s: float) -> float:
        """Return how long until a warm executor should be free, in seconds.

        An idle one waits for the other executors of its devices.
        """
        slots, executors = self._builder.state.residency.slots, [resident]
        if not resident.is_busy:
            others = [each for device_id in resident.devices for each in slots[device_id].residents.values()]
            executors = [each for each in others if each.is_busy]
        state, now = self._builder.state, self._builder.now
        return min(
            (state.time_estimates.remaining_s(each, now, run_s) for each in executors), default=math.inf
        )

    def start(self, candidate: Candidate, *, saves_load: bool = False) -> bool:
        """Assign the next jobs of the candidate to a warm executor; False where none may take any.

        Idle executors come first, then busy ones that may be assigned more, then one that loads for no job.
        """
        builder, job_class, residency = self._builder, candidate.job_class, self._builder.state.residency
        if job_class.key not in residency.by_key or builder.is_gathering_batch(candidate):
            return False
        depth = _stage_depth(builder, candidate)
        if (
            job_class.key in residency.idle_by_key
            and not builder.concurrency.is_at_limit(job_class)
            and self._use_idle(candidate, depth, saves_load)
        ):
            return True
        if depth > 1 and self._stage(candidate, depth):
            return True
        return job_class.key in residency.prewarmed and self._join_loading(candidate)

    def idle_executors(self, job_class: JobClass) -> list[ResidentExecutor]:
        """Return idle executors whose grant is enough for the class, the most recently used one last.

        The last one is not used by this plan; others may be.
        """
        builder, known = self._builder, self._idle.get(job_class)
        if known is None:
            state = builder.state
            of_key = state.residency.idle_by_key.get(job_class.key, {})
            known = [
                each
                for each in of_key.values()
                if not each.is_worn_out and state.memory_needs.is_granted_enough(each, job_class)
            ]
            self._idle[job_class] = known
        while known and known[-1].executor in builder.used_executors:
            known.pop()
        return known

    def _use_idle(self, candidate: Candidate, depth: int, saves_load: bool) -> bool:
        """Assign jobs to an idle executor, the most recently used first; False where none can take any.

        Where several idle, each gets an equal share of the waiting jobs.
        """
        builder = self._builder
        idle = self.idle_executors(candidate.job_class)
        for resident in reversed(idle):
            executor = resident.executor
            if executor in builder.used_executors:
                continue
            capacities = builder.capacities_of(resident)
            extra = builder.state.ledger.extra_bytes(executor)
            if not all(
                capacity.has_place_for(resident.grant_bytes)
                and capacity.has_free_bytes(extra)
                and candidate.may_run_on(capacity)
                for capacity in capacities
            ):
                continue
            # A batch is not spread: that would only make it smaller.
            share = (
                candidate.waiting_count if candidate.batch_max else -(-candidate.waiting_count // len(idle))
            )
            count = int(
                min(_free_places(builder, candidate, resident, depth), share, _limit_left(builder, candidate))
            )
            move = Move(
                candidate, candidate.peek(count), capacities, resident.grant_bytes, saves_load=saves_load
            )
            if builder.start(move, resident):
                self._relist(candidate, resident, depth)
                return True
        return False

    def _join_loading(self, candidate: Candidate) -> bool:
        """Assign a job to an executor that loads for none. A prewarm request is fulfilled by that too."""
        builder, state = self._builder, self._builder.state
        for resident in state.residency.prewarmed[candidate.job_class.key].values():
            if (
                resident.executor in builder.used_executors
                or not state.memory_needs.is_granted_enough(resident, candidate.job_class)
                or candidate.job_class.alone_on_device
            ):
                continue
            job_numbers = candidate.peek(int(min(candidate.jobs_per_run, _limit_left(builder, candidate))))
            move = Move(
                candidate,
                job_numbers,
                builder.capacities_of(resident),
                resident.grant_bytes,
                starts_executor=0,
                saves_load=True,
            )
            if builder.start(move, resident):
                return True
        return False

    def _relist(self, candidate: Candidate, resident: ResidentExecutor, depth: int) -> None:
        """List an executor that was idle among the busy ones that may get more jobs."""
        heap = self._by_free_places.get(candidate.job_class)
        if heap is not None:
            heappush(heap, self._heap_entry(candidate, resident, depth))

    def _stage(self, candidate: Candidate, depth: int) -> bool:
        """Assign more jobs to a busy executor, the one with most free places first; False where none can.

        Heap entries become outdated as executors get jobs: each is checked, and corrected, when it comes up.
        """
        builder, state, job_class = self._builder, self._builder.state, candidate.job_class
        heap = self._by_free_places.get(job_class)
        if heap is None:
            heap = self._by_free_places[job_class] = [
                self._heap_entry(candidate, each, depth)
                for each in state.residency.by_key[job_class.key].values()
                if (each.state == "running" or builder.used_executors.get(each.executor))
                and state.memory_needs.is_granted_enough(each, job_class)
            ]
            heapify(heap)
        refused: list[tuple[int, int]] = []
        is_handed = False
        while heap and not is_handed:
            entry = heappop(heap)
            resident = state.executors[entry[1]]
            now = self._heap_entry(candidate, resident, depth)
            if now[0] >= 0:
                continue
            if now != entry:
                heappush(heap, now)
                continue
            is_handed = self._assign_more(candidate, resident, -entry[0])
            # A refused executor is tried again for the next job, which may rank elsewhere.
            refused.append(self._heap_entry(candidate, resident, depth))
        for entry in refused:
            heappush(heap, entry)
        return is_handed

    def _assign_more(self, candidate: Candidate, resident: ResidentExecutor, count: int) -> bool:
        """Assign up to `count` more jobs to a busy executor; False where it must not get any."""
        count = int(min(count, _limit_left(self._builder, candidate)))
        if count < 1 or candidate.waiting_count < candidate.batch_max:
            # Only full batches are staged: more jobs may have arrived by the time it runs.
            return False
        capacities = self._builder.capacities_of(resident)
        if not all(capacity.may_assign_more(resident) for capacity in capacities) or _runs_alone(resident):
            return False
        move = Move(
            candidate,
            candidate.peek(count),
            capacities,
            resident.grant_bytes,
            starts_executor=0,
            saves_load=True,
        )
        return self._builder.start(move, resident)

    def _heap_entry(self, candidate: Candidate, resident: ResidentExecutor, depth: int) -> tuple[int, int]:
        return -_free_places(self._builder, candidate, resident, depth), resident.executor


def _runs_alone(resident: ResidentExecutor) -> bool:
    """Return whether the executor runs a job with which no other one may run."""
    return any(
        job_class.alone_on_device or job_class.alone_in_executor for job_class in resident.assigned.values()
    )


def _stage_depth(builder: PlanBuilder, candidate: Candidate) -> int:
    """Return how many attempts, or batches, an executor may hold, running ones included: at least 1."""
    job_class = candidate.job_class
    if candidate.need_bytes is None or job_class.alone_on_device or job_class.alone_in_executor:
        return 1
    slots = builder.state.batch_sizing.slot_count(job_class)
    return (
        slots
        if slots > 1
        else builder.state.limits.stage_depths.get((job_class.handler, job_class.version), 1)
    )


def _free_places(builder: PlanBuilder, candidate: Candidate, resident: ResidentExecutor, depth: int) -> int:
    """Return how many jobs of the candidate an executor may be assigned now; 0 or less: none.

    With batches that is one batch while fewer than `depth` are assigned.
    """
    planned_count = builder.used_executors.get(resident.executor, 0)
    if not candidate.batch_max:
        return resident.free_places(depth) - planned_count
    assigned_count = len(resident.assigned) + planned_count
    if assigned_count and (
        resident.long_job_number is not None or -(-assigned_count // candidate.batch_max) >= depth
    ):
        return 0
    places = (
        candidate.batch_max
        if resident.max_jobs is None
        else resident.max_jobs - resident.jobs_done - assigned_count
    )
    return min(candidate.batch_max, places)


def _limit_left(builder: PlanBuilder, candidate: Candidate) -> float:
    """Return how many more jobs the handler's limit allows to run at once; inf for staged jobs.

    Staged jobs do not run yet. With batches or slots, all jobs of an executor run.
    """
    is_spread = candidate.batch_max or builder.state.batch_sizing.slot_count(candidate.job_class) > 1
    return builder.concurrency.remaining(candidate.job_class) if is_spread else math.inf
