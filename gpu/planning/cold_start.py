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
WAYS_MAX = 8


@dataclass(slots=True)
class Way:
    """A way to let a job start: executors that must go with their bytes, and what is then kept for it."""

    victims: dict[int, int]
    claims: list[tuple[DeviceCapacity, int]]
    #: What loading them again is expected to cost, in seconds.
    loss_s: float = 0.0

    def cost(self) -> tuple[float, int, int, int]:
        """The less is lost, then the less is sent away, the better."""
        return self.loss_s, sum(self.victims.values()), len(self.victims), self.claims[0][0].slot.order


class Cold:
    """New executors as a plan goes on."""

    def __init__(self, turn: PlanBuilder, warm: WarmStarts) -> None:
        self._turn = turn
        self._warm = warm
        #: (is it the GPUs' lane, devices at once) to the smallest need for which no room is to be made: as a
        #: plan goes on there is only less, so that who needs as much need not be tried.
        self._walls: dict[tuple[bool, int], int] = {}

    def load(self, head: Candidate, rooms: list[DeviceCapacity], grant_bytes: int) -> None:
        """Load a new executor where one fits."""
        count = int(min(head.jobs_per_run, self._turn.concurrency.remaining(head.job_class)))
        self._turn.load(Move(head, head.peek(count), rooms, grant_bytes, is_cold=True))

    def fit(self, head: Candidate) -> tuple[list[DeviceCapacity], int] | None:
        """Where a new executor fits now, so that the least is left over (an unknown need: where most is
        free), and its grant on each device."""
        options: list[tuple[int, int, DeviceCapacity, int]] = []
        for cap_bytes in self._turn.pool(head):
            need = head.need_for_capacity(cap_bytes)
            found = (room for room in self._options(head, cap_bytes, need) if self._may(head, room, need))
            for room in islice(found, head.device_count):
                grant = room.free_now if head.need_bytes is None else need
                left = (
                    -room.free_now
                    if head.need_bytes is None
                    else -room.places
                    if need == 0
                    else room.free_now - need
                )
                options.append((left, room.slot.order, room, grant))
        if len(options) < head.device_count:
            return None
        best = sorted(options, key=lambda option: option[:2])[: head.device_count]
        return [room for _, _, room, _ in best], min(grant for *_, grant in best)

    def _options(self, head: Candidate, cap_bytes: int, need: int) -> Iterator[DeviceCapacity]:
        shelf = self._turn.pool(head)[cap_bytes]
        if head.need_bytes is None:
            return shelf.largest_first(need)
        return shelf.most_places() if need == 0 else shelf.best_fit(need)

    def _may(self, head: Candidate, room: DeviceCapacity, nbytes: int) -> bool:
        return head.may_run_on(room) and bool(
            self._turn.allowed_jobs(Move(head, [head.job_number], [room], nbytes, is_cold=True))
        )

    # Making room.

    def forget(self) -> None:
        """Claims were given up: who was tried in vain may find room now."""
        self._walls.clear()

    def claim(self, head: Candidate) -> None:
        """Keep for the head what it could have now, or what others are leaving for it."""
        shelves = self._turn.pool(head).values()
        if head.need_bytes == 0 or not any(shelf.freeing_count for shelf in shelves):
            return
        fit = self.fit(head)
        if fit is not None:
            for room in fit[0]:
                self._turn.claim(head, room, head.need_for_capacity(room.slot.device.cap_bytes))
            return
        found: list[tuple[DeviceCapacity, int]] = []
        for cap_bytes, shelf in self._turn.pool(head).items():
            need = head.need_for_capacity(cap_bytes)
            rooms = (room for room in shelf.after_leaving(need) if self._may(head, room, need))
            found += [(room, need) for room in islice(rooms, head.device_count)]
        if len(found) >= head.device_count:
            for room, need in found[: head.device_count]:
                self._turn.claim(head, room, need)

    def way(self, head: Candidate) -> Way | None:
        """How idle executors that go let the head start. Nobody is sent away where enough is coming already,
        or where it would not be enough."""
        idle = self._warm.idle_executors(head.job_class)
        found = [way for each in idle[-WAYS_MAX:] if (way := self._way_to_wake(head, each))]
        way = min(found, key=Way.cost, default=None)
        # An executor of the head's own kind goes only where nothing else helps.
        way = way or self._way_to_load(head, {each.executor for each in idle})
        way = way or (self._way_to_load(head, set()) if idle else None)
        return way if way is None or head.job_class.evicts or not way.victims else None

    def take(self, head: Candidate, way: Way) -> None:
        """Tell the executors of a way to go, and claim for the head what they leave."""
        for executor, nbytes in way.victims.items():
            self._turn.evict(executor, nbytes)
        for room, nbytes in way.claims:
            self._turn.claim(head, room, nbytes)

    def _way_to_wake(self, head: Candidate, resident: ResidentExecutor) -> Way | None:
        """Who must go so that an idle executor gets its whole grant back."""
        way = Way({}, [])
        extra = self._turn.state.ledger.extra_bytes(resident.executor)
        for room in self._turn.capacities_of(resident):
            if not room.has_place_for(resident.grant_bytes) or not self._may(
                head, room, resident.grant_bytes
            ):
                return None
            if not self._clear(way, room, extra, {resident.executor}):
                return None
        return way

    def _way_to_load(self, head: Candidate, keep: set[int]) -> Way | None:
        """Who must go so that a new executor fits, on the devices where that costs least."""
        ways: list[Way] = []
        count = 0
        for cap_bytes, shelf in self._turn.pool(head).items():
            need = head.need_for_capacity(cap_bytes)
            found = (room for room in shelf.after_eviction(need) if head.may_run_on(room))
            # Some come twice.
            for room in dict.fromkeys(islice(found, max(WAYS_MAX, 2 * head.device_count))):
                way = Way({}, [])
                if self._clear(way, room, need, keep, is_new=True):
                    count += 1
                    if self._may(head, room, need):
                        ways.append(way)
        if len(ways) < head.device_count:
            if count < head.device_count and not keep:
                self._wall(head)
            return None
        whole = Way({}, [])
        for way in sorted(ways, key=Way.cost)[: head.device_count]:
            whole.victims.update(way.victims)
            whole.claims.extend(way.claims)
            whole.loss_s += way.loss_s
        return whole

    def _clear(
        self, way: Way, room: DeviceCapacity, nbytes: int, keep: set[int], *, is_new: bool = False
    ) -> bool:
        """Add to a way the idle executors that must go from a device so that so many bytes, and a place for
        a new executor, are coming; False where that can't be had."""
        view = self._turn.state
        charge = view.ledger.charge_bytes
        lacking = nbytes - room.free_soon if nbytes > 0 else 0
        at_least = 1 if is_new and room.is_at_resident_limit else 0
        victims: dict[int, int] = {}
        if lacking > 0 or at_least:
            for executor in self._spare(room):
                if lacking <= 0 and len(victims) >= at_least:
                    break
                if executor not in keep:
                    victims[executor] = charge(executor)
                    lacking -= victims[executor]
            if lacking > 0 or len(victims) < at_least:
                return False
            # A later, larger one may have made the first ones needless.
            for executor, freed in list(victims.items()):
                if len(victims) > at_least and lacking + freed <= 0:
                    lacking += victims.pop(executor)
        way.victims.update(victims)
        way.claims.append((room, nbytes))
        way.loss_s += sum(self._loss_s(view.executors[executor]) for executor in victims)
        return True

    def _spare(self, room: DeviceCapacity) -> list[int]:
        """Idle executors that may be told to go, the cheapest to load again first; of two the one that
        idles longest."""
        spare = [each for each in room.slot.idle.values() if not each.is_pinned]
        spare = [each for each in spare if each.executor not in self._turn.used_executors]
        spare.sort(key=self._loss_s)
        return [each.executor for each in spare]

    def _loss_s(self, resident: ResidentExecutor) -> float:
        return self._turn.state.time_estimates.reload_cost_s(resident, self._turn.now)

    def is_walled(self, head: Candidate) -> bool:
        """Whether one that needs no more was tried in vain. An idle executor of its own is another matter."""
        need = head.need_bytes
        if (
            need is None
            or head.is_device_restricted
            or head.job_class.key in self._turn.state.residency.idle_by_key
        ):
            return False
        wall = self._walls.get((head.is_gpu, head.device_count))
        return wall is not None and need >= wall

    def _wall(self, head: Candidate) -> None:
        need = head.need_bytes
        if need is not None and not head.is_device_restricted and not head.job_class.alone:
            place = head.is_gpu, head.device_count
            self._walls[place] = min(need, self._walls.get(place, need))
