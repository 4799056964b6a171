"""Pure: new executors: where one fits, and who must go where none does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from gpu.planning.candidate import Candidate
from gpu.planning.plan_builder import Move, PlanBuilder
from gpu.planning.warm_start import WarmStarts
from gpu.scheduling.capacity import DeviceCapacity
from gpu.scheduling.resident_executor import ResidentExecutor

#: Of so many devices the one is chosen where the cheapest executors go.
EVICTION_PLANS_MAX = 8


@dataclass(slots=True)
class EvictionPlan:
    """A way to let a job start: executors that must go with their bytes, and what is then kept for it."""

    victims: dict[int, int]
    claims: list[tuple[DeviceCapacity, int]]
    #: What loading them again is expected to cost, in seconds.
    reload_cost_s: float = 0.0

    def cost(self) -> tuple[float, int, int, int]:
        """The less is lost, then the less is sent away, the better."""
        return self.reload_cost_s, sum(self.victims.values()), len(self.victims), self.claims[0][0].slot.order


class ColdStarts:
    """New executors as a plan goes on."""

    def __init__(self, turn: PlanBuilder, warm: WarmStarts) -> None:
        self._builder = turn
        self._warm_starts = warm
        #: (is it the GPUs' lane, devices at once) to the smallest need for which no room is to be made: as a
        #: plan goes on there is only less, so that who needs as much need not be tried.
        self._failed_needs: dict[tuple[bool, int], int] = {}

    def load(self, head: Candidate, rooms: list[DeviceCapacity], grant_bytes: int) -> None:
        """Load a new executor where one fits."""
        count = int(min(head.jobs_per_run, self._builder.concurrency.remaining(head.job_class)))
        self._builder.load(Move(head, head.peek(count), rooms, grant_bytes, is_cold=True))

    def find_fit(self, head: Candidate) -> tuple[list[DeviceCapacity], int] | None:
        """Where a new executor fits now, so that the least is left over (an unknown need: where most is
        free), and its grant on each device."""
        options: list[tuple[int, int, DeviceCapacity, int]] = []
        for cap_bytes in self._builder.pool(head):
            need = head.need_for_capacity(cap_bytes)
            allowed = (
                room for room in self._fitting(head, cap_bytes, need) if self._is_allowed(head, room, need)
            )
            for room in islice(allowed, head.device_count):
                grant = room.free_now if head.need_bytes is None else need
                surplus = (
                    -room.free_now
                    if head.need_bytes is None
                    else -room.places
                    if need == 0
                    else room.free_now - need
                )
                options.append((surplus, room.slot.order, room, grant))
        if len(options) < head.device_count:
            return None
        best = sorted(options, key=lambda option: option[:2])[: head.device_count]
        return [room for _, _, room, _ in best], min(grant for *_, grant in best)

    def _fitting(self, head: Candidate, cap_bytes: int, need: int) -> Iterator[DeviceCapacity]:
        shelf = self._builder.pool(head)[cap_bytes]
        if head.need_bytes is None:
            return shelf.largest_first(need)
        return shelf.most_places() if need == 0 else shelf.best_fit(need)

    def _is_allowed(self, head: Candidate, room: DeviceCapacity, nbytes: int) -> bool:
        return head.may_run_on(room) and bool(
            self._builder.allowed_jobs(Move(head, [head.job_number], [room], nbytes, is_cold=True))
        )

    # Making room.

    def clear_failures(self) -> None:
        """Claims were given up: who was tried in vain may find room now."""
        self._failed_needs.clear()

    def claim(self, head: Candidate) -> None:
        """Keep for the head what it could have now, or what others are leaving for it."""
        shelves = self._builder.pool(head).values()
        if head.need_bytes == 0 or not any(shelf.freeing_count for shelf in shelves):
            return
        fit = self.find_fit(head)
        if fit is not None:
            for room in fit[0]:
                self._builder.claim(head, room, head.need_for_capacity(room.slot.device.cap_bytes))
            return
        found: list[tuple[DeviceCapacity, int]] = []
        for cap_bytes, shelf in self._builder.pool(head).items():
            need = head.need_for_capacity(cap_bytes)
            rooms = (room for room in shelf.after_leaving(need) if self._is_allowed(head, room, need))
            found += [(room, need) for room in islice(rooms, head.device_count)]
        if len(found) >= head.device_count:
            for room, need in found[: head.device_count]:
                self._builder.claim(head, room, need)

    def find_eviction(self, head: Candidate) -> EvictionPlan | None:
        """How idle executors that go let the head start. Nobody is sent away where enough is coming already,
        or where it would not be enough."""
        idle = self._warm_starts.idle_executors(head.job_class)
        eviction_plans = [
            way for each in idle[-EVICTION_PLANS_MAX:] if (way := self._plan_for_idle(head, each))
        ]
        way = min(eviction_plans, key=EvictionPlan.cost, default=None)
        # An executor of the head's own kind goes only where nothing else helps.
        way = way or self._plan_for_new(head, {each.executor for each in idle})
        way = way or (self._plan_for_new(head, set()) if idle else None)
        return way if way is None or head.job_class.may_evict or not way.victims else None

    def apply_eviction(self, head: Candidate, way: EvictionPlan) -> None:
        """Tell the executors of a way to go, and claim for the head what they leave."""
        for executor, nbytes in way.victims.items():
            self._builder.evict(executor, nbytes)
        for room, nbytes in way.claims:
            self._builder.claim(head, room, nbytes)

    def _plan_for_idle(self, head: Candidate, resident: ResidentExecutor) -> EvictionPlan | None:
        """Who must go so that an idle executor gets its whole grant back."""
        way = EvictionPlan({}, [])
        extra = self._builder.state.ledger.extra_bytes(resident.executor)
        for room in self._builder.capacities_of(resident):
            if not room.has_place_for(resident.grant_bytes) or not self._is_allowed(
                head, room, resident.grant_bytes
            ):
                return None
            if not self._add_victims(way, room, extra, {resident.executor}):
                return None
        return way

    def _plan_for_new(self, head: Candidate, kept_executors: set[int]) -> EvictionPlan | None:
        """Who must go so that a new executor fits, on the devices where that costs least."""
        eviction_plans: list[EvictionPlan] = []
        count = 0
        for cap_bytes, shelf in self._builder.pool(head).items():
            need = head.need_for_capacity(cap_bytes)
            found = (room for room in shelf.after_eviction(need) if head.may_run_on(room))
            # Some come twice.
            for room in dict.fromkeys(islice(found, max(EVICTION_PLANS_MAX, 2 * head.device_count))):
                way = EvictionPlan({}, [])
                if self._add_victims(way, room, need, kept_executors, is_new=True):
                    count += 1
                    if self._is_allowed(head, room, need):
                        eviction_plans.append(way)
        if len(eviction_plans) < head.device_count:
            if count < head.device_count and not kept_executors:
                self._record_failure(head)
            return None
        combined = EvictionPlan({}, [])
        for way in sorted(eviction_plans, key=EvictionPlan.cost)[: head.device_count]:
            combined.victims.update(way.victims)
            combined.claims.extend(way.claims)
            combined.reload_cost_s += way.reload_cost_s
        return combined

    def _add_victims(
        self,
        way: EvictionPlan,
        room: DeviceCapacity,
        nbytes: int,
        kept_executors: set[int],
        *,
        is_new: bool = False,
    ) -> bool:
        """Add to a way the idle executors that must go from a device so that so many bytes, and a place for
        a new executor, are coming; False where that can't be had."""
        view = self._builder.state
        charge = view.ledger.charge_bytes
        lacking_bytes = nbytes - room.free_soon if nbytes > 0 else 0
        at_least = 1 if is_new and room.is_at_resident_limit else 0
        victims: dict[int, int] = {}
        if lacking_bytes > 0 or at_least:
            for executor in self._evictable(room):
                if lacking_bytes <= 0 and len(victims) >= at_least:
                    break
                if executor not in kept_executors:
                    victims[executor] = charge(executor)
                    lacking_bytes -= victims[executor]
            if lacking_bytes > 0 or len(victims) < at_least:
                return False
            # A later, larger one may have made the first ones needless.
            for executor, freed in list(victims.items()):
                if len(victims) > at_least and lacking_bytes + freed <= 0:
                    lacking_bytes += victims.pop(executor)
        way.victims.update(victims)
        way.claims.append((room, nbytes))
        way.reload_cost_s += sum(self._reload_cost_s(view.executors[executor]) for executor in victims)
        return True

    def _evictable(self, room: DeviceCapacity) -> list[int]:
        """Idle executors that may be told to go, the cheapest to load again first; of two the one that
        idles longest."""
        evictable = [each for each in room.slot.idle.values() if not each.is_pinned]
        evictable = [each for each in evictable if each.executor not in self._builder.used_executors]
        evictable.sort(key=self._reload_cost_s)
        return [each.executor for each in evictable]

    def _reload_cost_s(self, resident: ResidentExecutor) -> float:
        return self._builder.state.time_estimates.reload_cost_s(resident, self._builder.now)

    def is_known_full(self, head: Candidate) -> bool:
        """Whether one that needs no more was tried in vain. An idle executor of its own is another matter."""
        need_bytes = head.need_bytes
        if (
            need_bytes is None
            or head.is_device_restricted
            or head.job_class.key in self._builder.state.residency.idle_by_key
        ):
            return False
        failed_need = self._failed_needs.get((head.is_gpu, head.device_count))
        return failed_need is not None and need_bytes >= failed_need

    def _record_failure(self, head: Candidate) -> None:
        need_bytes = head.need_bytes
        if need_bytes is not None and not head.is_device_restricted and not head.job_class.alone_on_device:
            key = head.is_gpu, head.device_count
            self._failed_needs[key] = min(need_bytes, self._failed_needs.get(key, need_bytes))
