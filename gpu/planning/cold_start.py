"""Pure: cold starts: where a new executor fits, and which idle executors to evict where none does.

An eviction costs the time to load the victim again, times the probability that it is requested soon
(`TimeEstimates.reload_cost_s`). The cheapest set of victims on one of a few devices is chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from gpu.planning.candidate import Candidate
from gpu.planning.plan_builder import Move, PlanBuilder
from gpu.planning.warm_start import WarmStarts
from gpu.scheduling.capacity import DeviceCapacity
from gpu.scheduling.resident_executor import ResidentExecutor

#: The cheapest eviction is chosen among this many devices.
EVICTION_PLANS_MAX = 8


@dataclass(slots=True)
class EvictionPlan:
    """Evictions that let a job start: the victims, and what is then claimed for the job."""

    #: Executor to the bytes that it frees on each of its devices. Empty: enough bytes are being freed.
    victims: dict[int, int]
    #: The devices on which the job is going to start, and its bytes on each.
    claims: list[tuple[DeviceCapacity, int]]
    #: Expected cost of loading the victims again, in seconds.
    reload_cost_s: float = 0.0

    def cost(self) -> tuple[float, int, int, int]:
        """Return the sort key: the cheapest to reload, then the fewest bytes and executors evicted."""
        return self.reload_cost_s, sum(self.victims.values()), len(self.victims), self.claims[0][0].slot.order


class ColdStarts:
    """The new executors that a plan starts, and the evictions that make space for them."""

    def __init__(self, builder: PlanBuilder, warm_starts: WarmStarts) -> None:
        """Start without failed searches; `warm_starts` knows the idle executors of each class."""
        self._builder = builder
        self._warm_starts = warm_starts
        #: (whether it is the GPU pool, devices at once) to the smallest need for which no eviction was found.
        #: Capacity only shrinks during a plan, so a candidate that needs as much or more is not tried again.
        self._failed_needs: dict[tuple[bool, int], int] = {}

    def load(self, candidate: Candidate, capacities: list[DeviceCapacity], grant_bytes: int) -> None:
        """Load a new executor on devices where it fits, with `grant_bytes` on each of them."""
        count = int(min(candidate.jobs_per_run, self._builder.concurrency.remaining(candidate.job_class)))
        self._builder.load(Move(candidate, candidate.peek(count), capacities, grant_bytes, is_cold=True))

    def find_fit(self, candidate: Candidate) -> tuple[list[DeviceCapacity], int] | None:
        """Return the devices where a new executor fits now, and its grant on each of them.

        None where it fits on fewer devices than the candidate takes. Best fit: the devices on which the
        fewest bytes remain, which keeps large gaps whole. For an unknown need it is the devices with the most
        free bytes, and the grant is all of them; without a need, those with the most places.
        """
        options: list[tuple[int, int, DeviceCapacity, int]] = []
        for cap_bytes in self._builder.pool(candidate):
            need = candidate.need_for_capacity(cap_bytes)
            allowed = (
                capacity
                for capacity in self._fitting(candidate, cap_bytes, need)
                if self._is_allowed(candidate, capacity, need)
            )
            for capacity in islice(allowed, candidate.device_count):
                grant = capacity.free_now if candidate.need_bytes is None else need
                surplus = (
                    -capacity.free_now
                    if candidate.need_bytes is None
                    else -capacity.places
                    if need == 0
                    else capacity.free_now - need
                )
                options.append((surplus, capacity.slot.order, capacity, grant))
        if len(options) < candidate.device_count:
            return None
        best = sorted(options, key=lambda option: option[:2])[: candidate.device_count]
        return [capacity for _, _, capacity, _ in best], min(grant for *_, grant in best)

    def _fitting(self, candidate: Candidate, cap_bytes: int, need: int) -> Iterator[DeviceCapacity]:
        """Yield the devices of one size where `need` bytes are free, the preferred ones first."""
        index = self._builder.pool(candidate)[cap_bytes]
        if candidate.need_bytes is None:
            return index.largest_first(need)
        return index.most_places() if need == 0 else index.best_fit(need)

    def _is_allowed(self, candidate: Candidate, capacity: DeviceCapacity, nbytes: int) -> bool:
        """Return whether the candidate may run on the device, and no guard objects to a start there."""
        return candidate.may_run_on(capacity) and bool(
            self._builder.allowed_jobs(
                Move(candidate, [candidate.job_number], [capacity], nbytes, is_cold=True)
            )
        )

    # Evictions.

    def clear_failures(self) -> None:
        """Forget failed searches after claims were released: the same need may fit now."""
        self._failed_needs.clear()

    def claim(self, candidate: Candidate) -> None:
        """Claim for the candidate what it could have now, or what leaving executors will free for it."""
        indexes = self._builder.pool(candidate).values()
        if candidate.need_bytes == 0 or not any(index.freeing_count for index in indexes):
            return
        fit = self.find_fit(candidate)
        if fit is not None:
            for capacity in fit[0]:
                self._builder.claim(
                    candidate, capacity, candidate.need_for_capacity(capacity.slot.device.cap_bytes)
                )
            return
        found: list[tuple[DeviceCapacity, int]] = []
        for cap_bytes, index in self._builder.pool(candidate).items():
            need = candidate.need_for_capacity(cap_bytes)
            capacities = (
                capacity
                for capacity in index.after_leaving(need)
                if self._is_allowed(candidate, capacity, need)
            )
            found += [(capacity, need) for capacity in islice(capacities, candidate.device_count)]
        if len(found) >= candidate.device_count:
            for capacity, need in found[: candidate.device_count]:
                self._builder.claim(candidate, capacity, need)

    def find_eviction(self, candidate: Candidate) -> EvictionPlan | None:
        """Return the cheapest set of evictions that lets the candidate start.

        None where it would not be enough. There are no victims where enough bytes are already being freed.
        """
        idle = self._warm_starts.idle_executors(candidate.job_class)
        eviction_plans = [
            eviction
            for each in idle[-EVICTION_PLANS_MAX:]
            if (eviction := self._plan_for_idle(candidate, each))
        ]
        eviction = min(eviction_plans, key=EvictionPlan.cost, default=None)
        # An executor of the candidate's own key is evicted only where nothing else helps.
        eviction = eviction or self._plan_for_new(candidate, {each.executor for each in idle})
        eviction = eviction or (self._plan_for_new(candidate, set()) if idle else None)
        return eviction if eviction is None or candidate.job_class.may_evict or not eviction.victims else None

    def apply_eviction(self, candidate: Candidate, eviction: EvictionPlan) -> None:
        """Evict the victims, and claim for the candidate the bytes that they free."""
        for executor, nbytes in eviction.victims.items():
            self._builder.evict(executor, nbytes)
        for capacity, nbytes in eviction.claims:
            self._builder.claim(candidate, capacity, nbytes)

    def _plan_for_idle(self, candidate: Candidate, resident: ResidentExecutor) -> EvictionPlan | None:
        """Return the evictions that let an idle executor have its whole grant again."""
        eviction = EvictionPlan({}, [])
        extra = self._builder.state.ledger.extra_bytes(resident.executor)
        for capacity in self._builder.capacities_of(resident):
            if not capacity.has_place_for(resident.grant_bytes) or not self._is_allowed(
                candidate, capacity, resident.grant_bytes
            ):
                return None
            if not self._add_victims(eviction, capacity, extra, {resident.executor}):
                return None
        return eviction

    def _plan_for_new(self, candidate: Candidate, kept_executors: set[int]) -> EvictionPlan | None:
        """Return the evictions that make a new executor fit, on the devices where they cost least."""
        eviction_plans: list[EvictionPlan] = []
        count = 0
        for cap_bytes, index in self._builder.pool(candidate).items():
            need = candidate.need_for_capacity(cap_bytes)
            found = (capacity for capacity in index.after_eviction(need) if candidate.may_run_on(capacity))
            # A device may be listed twice.
            for capacity in dict.fromkeys(islice(found, max(EVICTION_PLANS_MAX, 2 * candidate.device_count))):
                eviction = EvictionPlan({}, [])
                if self._add_victims(eviction, capacity, need, kept_executors, is_new=True):
                    count += 1
                    if self._is_allowed(candidate, capacity, need):
                        eviction_plans.append(eviction)
        if len(eviction_plans) < candidate.device_count:
            if count < candidate.device_count and not kept_executors:
                self._record_failure(candidate)
            return None
        combined = EvictionPlan({}, [])
        for eviction in sorted(eviction_plans, key=EvictionPlan.cost)[: candidate.device_count]:
            combined.victims.update(eviction.victims)
            combined.claims.extend(eviction.claims)
            combined.reload_cost_s += eviction.reload_cost_s
        return combined

    def _add_victims(
        self,
        eviction: EvictionPlan,
        capacity: DeviceCapacity,
        nbytes: int,
        kept_executors: set[int],
        *,
        is_new: bool = False,
    ) -> bool:
        """Add the idle executors to evict so that `nbytes` become free on a device; False where that fails.

        `is_new` also requires one resident fewer where the device is at its limit.
        """
        state = self._builder.state
        charge = state.ledger.charge_bytes
        lacking_bytes = nbytes - capacity.free_soon if nbytes > 0 else 0
        at_least = 1 if is_new and capacity.is_at_resident_limit else 0
        victims: dict[int, int] = {}
        if lacking_bytes > 0 or at_least:
            for executor in self._evictable(capacity):
                if lacking_bytes <= 0 and len(victims) >= at_least:
                    break
                if executor not in kept_executors:
                    victims[executor] = charge(executor)
                    lacking_bytes -= victims[executor]
            if lacking_bytes > 0 or len(victims) < at_least:
                return False
            # A later, larger victim may have made the first ones unnecessary.
            for executor, freed in list(victims.items()):
                if len(victims) > at_least and lacking_bytes + freed <= 0:
                    lacking_bytes += victims.pop(executor)
        eviction.victims.update(victims)
        eviction.claims.append((capacity, nbytes))
        eviction.reload_cost_s += sum(self._reload_cost_s(state.executors[executor]) for executor in victims)
        return True

    def _evictable(self, capacity: DeviceCapacity) -> list[int]:
        """Return the idle executors that may be evicted, the cheapest to reload first.

        At equal cost the one that has idled longest comes first.
        """
        evictable = [each for each in capacity.slot.idle.values() if not each.is_pinned]
        evictable = [each for each in evictable if each.executor not in self._builder.used_executors]
        evictable.sort(key=self._reload_cost_s)
        return [each.executor for each in evictable]

    def _reload_cost_s(self, resident: ResidentExecutor) -> float:
        """Return the expected cost of evicting an executor now, in seconds."""
        return self._builder.state.time_estimates.reload_cost_s(resident, self._builder.now)

    def is_known_full(self, candidate: Candidate) -> bool:
        """Return whether an equal or smaller need was tried without success in this plan.

        Does not apply where the class has an idle executor of its own, which may be reused.
        """
        need_bytes = candidate.need_bytes
        if (
            need_bytes is None
            or candidate.is_device_restricted
            or candidate.job_class.key in self._builder.state.residency.idle_by_key
        ):
            return False
        failed_need = self._failed_needs.get((candidate.is_gpu, candidate.device_count))
        return failed_need is not None and need_bytes >= failed_need

    def _record_failure(self, candidate: Candidate) -> None:
        """Remember a need for which no eviction was found, unless a restriction of the class caused that."""
        need_bytes = candidate.need_bytes
        if (
            need_bytes is not None
            and not candidate.is_device_restricted
            and not candidate.job_class.alone_on_device
        ):
            key = candidate.is_gpu, candidate.device_count
            self._failed_needs[key] = min(need_bytes, self._failed_needs.get(key, need_bytes))
