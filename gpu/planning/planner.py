"""Pure: which waiting job starts where, and which idle executors are evicted for it.

`plan(state, now)` is a function of the state and the time alone: apart from refreshing caches it changes
nothing, and equal states give equal plans. Of each class only the first jobs are considered, in the order of
`gpu.planning.candidate`:

1. an idle executor with the right model takes a job out of order where that saves a load that is long
   compared to the run; an executor of short jobs gets some more, staged (`gpu.planning.warm_start`);
2. in order, a job starts on a warm executor, or waits for one that should be free before a new one had
   loaded, or a new executor loads where the bytes fit best (`gpu.planning.cold_start`);
3. idle executors are evicted, the cheapest to reload first, where nothing else is missing; the bytes that
   they free are claimed for the job;
4. for the first job of a pool that finds no capacity, devices are reserved, those that should be free first;
   other jobs are backfilled, the shortest of each tenant first, where they do not delay it
   (`gpu.planning.reservation`).

Of two tenants, the one with less device time for its weight goes first (`gpu.scheduling.tenant_shares`).

A class that takes batches is left out while its next batch is gathering (`gpu.estimates.batch_sizing`).

Every other overtaking of a job is counted, and the count is bounded.

Where many classes wait, the plan looks at the first of them only (`gpu.planning.selection`).
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from gpu.job_class import JobClass
from gpu.planning.actions import EvictAction, LoadAction, Plan, PlanAction, StartAction, WaitReason
from gpu.planning.candidate import Candidate, make_backfill_rank
from gpu.planning.cold_start import ColdStarts
from gpu.planning.plan_builder import PlanBuilder
from gpu.planning.reservation import CandidateGuard, LazyReservation, Reservation
from gpu.planning.selection import select_classes
from gpu.planning.warm_start import WarmStarts
from gpu.scheduling.scheduler_state import SchedulerState
from gpu.scheduling.time_estimates import UNKNOWN_LOAD_S

__all__ = [
    "EvictAction",
    "JobClass",
    "LoadAction",
    "Plan",
    "PlanAction",
    "SchedulerState",
    "StartAction",
    "WaitReason",
    "plan",
]

#: Overtaking is counted for this many of the first waiting jobs of a pool.
GUARDED_CANDIDATES = 8
#: A new executor loads where waiting for a warm one would take this many times as long as the load.
WARM_WAIT_FACTOR = 1.0
#: The same factor where the load takes no last place and evicts nothing: then later jobs can use it too.
WARM_WAIT_FACTOR_WITH_SPACE = 0.5
#: A tenant with warm executors may get ahead of another by this many loads of the other's class. Then the
#: other's class is loaded at the latest, so that about a tenth of the time is spent on loading.
LEAD_LOADS = 10.0


def plan(state: SchedulerState, now: float) -> Plan:
    """Plan the actions for the time `now`, in seconds of the clock by which the state was updated.

    The caller carries the actions out in order, by the methods of the state with the same names. The cost
    grows with the number of changed devices, and up to a bound with that of waiting classes, not with the
    number of waiting jobs.
    """
    state.capacity_table.refresh()
    state.tenant_shares.advance(now)
    return _Planner(state, now).plan()


def find_reservation(state: SchedulerState, now: float, job_number: int) -> Reservation | None:
    """Return what a plan for `now` reserves for a waiting job; None where it reserves nothing for it.

    The plan itself is discarded.
    """
    state.capacity_table.refresh()
    planner = _Planner(state, now)
    planner.plan()
    guards = [guard for guards in planner.builder.guards.values() for guard in guards]
    reservations = (
        guard.reservation
        for guard in guards
        if isinstance(guard, LazyReservation) and guard.candidate.job_number == job_number
    )
    return next(reservations, None)


class _Planner:
    """One plan; used once."""

    def __init__(self, state: SchedulerState, now: float) -> None:
        self.state = state
        self.now = now
        self.builder = PlanBuilder(state, now)
        self.warm_starts = WarmStarts(self.builder)
        self.cold_starts = ColdStarts(self.builder, self.warm_starts)
        self.reasons = self.builder.reasons
        self.selection = select_classes(state, now, self.builder.plan_shares)
        #: By whether it is the GPU pool: as many executors are resident on each device as may be.
        self._is_full: dict[bool, bool] = {}

    def plan(self) -> Plan:
        """Run the steps of the module's docstring; 1 is `_start_out_of_order`, 4 ends with `_backfill`."""
        candidates = self._candidates()
        if len(candidates) > 1:
            candidates.sort(key=lambda candidate: candidate.rank)
            self._start_out_of_order(candidates)
        self._backfill(self._start_in_order(candidates))
        if self._may_have_missed(candidates):
            self.builder.replan_at = self.now
        is_partial = len(self.selection.classes) < len(self.state.backlog.order.classes)
        return Plan(self.builder.actions, self.reasons, self.builder.replan_at, is_partial)

    def _candidates(self) -> list[Candidate]:
        """Return the next job of each selected class, without batches that gather jobs."""
        state, plan_shares = self.state, self.builder.plan_shares
        top_priority = state.backlog.top_priority
        candidates: list[Candidate] = []
        for job_class in self.selection.classes:
            candidate = Candidate(state, job_class, self.now, top_priority, plan_shares)
            if not self.builder.is_gathering_batch(candidate):
                candidates.append(candidate)
        return candidates

    def _may_have_missed(self, candidates: list[Candidate]) -> bool:
        """Return whether all that was looked at of a list is out of the way, so that more of it may start."""
        by_class = {candidate.job_class: candidate for candidate in candidates}
        return bool(self.builder.actions) and any(
            all(
                job_class not in by_class
                or not by_class[job_class].waiting_count
                or self.reasons.get(job_class) == "concurrency_limit"
                for job_class in cut
            )
            for cut in self.selection.cut_lists
        )

    def _start_out_of_order(self, candidates: list[Candidate]) -> None:
        """Start warm jobs that save a load; the first candidates keep what they could have now."""
        builder = self.builder
        # One at the limit of its handler would not get what it could have.
        may_start = [each for each in candidates if not builder.concurrency.is_at_limit(each.job_class)]
        for candidate in may_start:
            guards = builder.guards[candidate.is_gpu]
            if candidate.overtakes_left <= 0 or len(guards) < GUARDED_CANDIDATES:
                guards.append(CandidateGuard(builder, candidate))
        guarded = {guard.candidate for guards in builder.guards.values() for guard in guards}
        startable = {
            candidate
            for candidate in candidates
            if self.warm_starts.has_executor(candidate) and self.warm_starts.saves_load(candidate)
        }
        least_served = self._least_served(may_start)
        heap = [
            (candidate.rank, candidate)
            for candidate in candidates
            if candidate in startable or candidate in guarded
        ]
        heapify(heap)
        while startable:
            _, candidate = heappop(heap)
            if candidate.update_rank():
                heappush(heap, (candidate.rank, candidate))
                continue
            builder.release_claims(candidate)
            if (
                candidate in startable
                and not self._is_over_served(candidate, least_served)
                and self.warm_starts.start(candidate, saves_load=True)
            ):
                if candidate.waiting_count:
                    heappush(heap, (candidate.rank, candidate))
                    continue
            elif candidate in guarded and not builder.concurrency.is_at_limit(candidate.job_class):
                self.cold_starts.claim(candidate)
            startable.discard(candidate)
        for candidate in guarded:
            builder.release_claims(candidate)
        self.cold_starts.clear_failures()
        builder.guards = {True: [], False: []}

    def _least_served(self, candidates: list[Candidate]) -> dict[tuple[bool, float], Candidate]:
        """Return, for each pool and priority, the candidate whose tenant has had least."""
        found: dict[tuple[bool, float], Candidate] = {}
        for candidate in candidates if self.builder.plan_shares.has_many_tenants else ():
            key = candidate.is_gpu, candidate.rank[0]
            if key not in found or candidate.rank[2] < found[key].rank[2]:
                found[key] = candidate
        return found

    def _is_over_served(
        self, candidate: Candidate, least_served: dict[tuple[bool, float], Candidate]
    ) -> bool:
        """Return whether its tenant is too far ahead of another waiting one to start jobs out of order."""
        other = least_served.get((candidate.is_gpu, candidate.rank[0]))
        if other is None:
            return False
        load_s = self.state.time_estimates.load_s(other.job_class.key)
        return candidate.rank[2] - other.rank[2] > LEAD_LOADS * (UNKNOWN_LOAD_S if load_s is None else load_s)

    def _start_in_order(self, candidates: list[Candidate]) -> list[Candidate]:
        """Start candidates in order until one is blocked in each pool; return those behind it."""
        heap = [(candidate.rank, candidate) for candidate in candidates if candidate.waiting_count]
        heapify(heap)
        blocked: set[bool] = set()
        others: list[Candidate] = []
        while heap:
            _, candidate = heappop(heap)
            if candidate.is_gpu in blocked:
                others.append(candidate)
            elif candidate.update_rank():
                heappush(heap, (candidate.rank, candidate))
            elif self._start(candidate):
                if candidate.waiting_count:
                    heappush(heap, (candidate.rank, candidate))
            elif candidate.is_blocked and not candidate.job_class.is_prewarm:
                guards = self.builder.guards[candidate.is_gpu]
                guards.append(LazyReservation(self.builder, candidate))
                if not candidate.claims or len(guards) >= GUARDED_CANDIDATES:
                    blocked.add(candidate.is_gpu)
        return others

    def _backfill(self, candidates: list[Candidate]) -> None:
        """Start others where they delay none before them: by priority and tenant, the shortest first."""
        heap = [(make_backfill_rank(candidate.rank, candidate.run_s), candidate) for candidate in candidates]
        heapify(heap)
        while heap:
            _, candidate = heappop(heap)
            if candidate.update_rank() or (self._start(candidate) and candidate.waiting_count):
                heappush(heap, (make_backfill_rank(candidate.rank, candidate.run_s), candidate))

    def _start(self, candidate: Candidate) -> bool:
        """Start the candidate, or free capacity for it, or record why it waits."""
        builder, job_class = self.builder, candidate.job_class
        candidate.is_blocked = False
        if builder.is_gathering_batch(candidate):
            return False
        if self.warm_starts.start(candidate):
            self.reasons.pop(job_class, None)
            return True
        if builder.concurrency.is_at_limit(job_class):
            self.reasons[job_class] = "concurrency_limit"
            return False
        if self._load(candidate):
            self.reasons.pop(job_class, None)
            return True
        self.reasons[job_class] = self._reason(candidate)
        return False

    def _load(self, candidate: Candidate) -> bool:
        """Load a new executor or evict others for it, unless a warm one is free sooner."""
        if self.cold_starts.is_known_full(candidate):
            candidate.is_blocked = True
            return False
        fit = self.cold_starts.find_fit(candidate)
        if fit is None:
            eviction = self.cold_starts.find_eviction(candidate)
            if eviction is None:
                candidate.is_blocked = True
                return False
            if not eviction.victims or not self.warm_starts.is_sooner(
                candidate, WARM_WAIT_FACTOR, eviction.reload_cost_s
            ):
                candidate.is_blocked = True
                self.cold_starts.apply_eviction(candidate, eviction)
            return False
        places = sum(index.open_count for index in self.builder.pool(candidate).values())
        has_more = places > candidate.device_count or all(capacity.places > 1 for capacity in fit[0])
        if self.warm_starts.is_sooner(
            candidate, WARM_WAIT_FACTOR_WITH_SPACE if has_more else WARM_WAIT_FACTOR, 0.0
        ):
            return False
        self.cold_starts.load(candidate, *fit)
        return True

    def _reason(self, candidate: Candidate) -> WaitReason:
        """Return whether bytes or whole devices are missing for a candidate that could not start."""
        if candidate.job_class.alone_on_device and all(
            slot.busy_count for slot in self.state.residency.candidate_devices(candidate.job_class)
        ):
            return "waiting_for_device"
        if candidate.is_gpu not in self._is_full:
            slots = self.state.residency.slots.values()
            self._is_full[candidate.is_gpu] = all(
                slot.is_full for slot in slots if slot.is_gpu is candidate.is_gpu
            )
        if self._is_full[candidate.is_gpu]:
            return "waiting_for_device"
        lacking_bytes = sum(
            index.open_count
            for cap_bytes, index in self.builder.pool(candidate).items()
            if 0 < candidate.need_for_capacity(cap_bytes) <= cap_bytes
        )
        return "waiting_for_memory" if lacking_bytes >= candidate.device_count else "waiting_for_device"
