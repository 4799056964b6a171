"""Pure: which waiting job starts where, and who must make room for it.

`plan(view, now)` is a function of the view alone: it changes nothing, and equal views give equal plans.
Jobs are looked at by priority, then in order of acceptance, and of each class only the first ones:

1. an idle executor that has loaded the right thing takes the job; one that runs short jobs is handed
   some more, staged;
2. a new executor loads where the bytes fit best;
3. idle executors are told to go, least recently used first, where that is all that is missing; what
   they leave is claimed for the job;
4. else the job waits, and does not hold up others, until it was overtaken so often that devices
   are kept for it.

Among equal priorities warm starts go first: they cost nothing, and each counts as overtaking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import groupby

from gpu.action import Action, Evict, Load, Plan, Reason, Start
from gpu.line import JobClass
from gpu.resident import Resident, Slot
from gpu.room import Head, Room, Way
from gpu.view import View

__all__ = ["Action", "Evict", "JobClass", "Load", "Plan", "Reason", "Start", "View", "plan"]


def plan(view: View, now: float) -> Plan:
    """What to do now. Nothing depends on `now` (seconds, any clock) yet; expected ends will."""
    turn = _Turn(view)
    for level in _levels(view):
        turn.serve(level)
    return Plan(turn.actions, turn.reasons)


def _levels(view: View) -> Iterator[list[Head]]:
    """Heads of equal priority, highest first, each level in order of acceptance."""
    heads = [Head(view, cls) for cls in view.lines]
    heads.sort(key=lambda head: (-head.cls.priority, head.n))
    for _, level in groupby(heads, key=lambda head: head.cls.priority):
        yield list(level)


class _Turn:
    """One plan in the making."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.actions: list[Action] = []
        self.reasons: dict[JobClass, Reason] = {}
        self.rooms: dict[str, Room] = {}
        #: Heads that may be overtaken: those of this level and all that still wait above it.
        self.guards: list[Head] = []
        #: Executors that this plan handed something (how much) or told to go (0).
        self.touched: dict[int, int] = {}
        #: Handler to executors that this plan set to work.
        self.busy: dict[str, int] = {}
        #: (is it the cpu lane, devices at once) to the smallest need for which there is no room, and none to
        #: be made: as a plan goes on there is only less, so that who needs as much need not be tried.
        self.walls: dict[tuple[bool, int], int] = {}

    def serve(self, level: list[Head]) -> None:
        """Start what can be started of one priority, in three rounds: who was overtaken too often, who
        finds a warm executor, the rest."""
        heads = [head for head in level if head.cls.queue not in self.view.paused]
        if len(heads) < len(level):
            for head in level:
                if head.cls.queue in self.view.paused:
                    self.reasons[head.cls] = "paused"
        self.guards += heads
        if len(heads) > 1:
            # What these rounds find no room for may have some for an older head, or without claims.
            walls = dict(self.walls)
            for head in heads:
                if head.remaining <= 0:
                    self._any(head)
            self._round(heads, self._warm_first)
            self.walls = walls
            for head in heads:
                if head.remaining > 0:
                    head.unclaim()
        self._round(heads, self._any)

    def _round(self, heads: Sequence[Head], attempt: Callable[[Head], bool]) -> None:
        heap = [(head.n, place, head) for place, head in enumerate(heads) if head.waiting]
        while heap:
            _, place, head = heappop(heap)
            if attempt(head) and head.waiting:
                heappush(heap, (head.n, place, head))

    def _any(self, head: Head) -> bool:
        """Start the head in any way, or make room for it, or say why it waits."""
        head.unclaim()
        if self._warm(head):
            self.reasons.pop(head.cls, None)
            return True
        if self._at_limit(head.cls.handler):
            self.reasons[head.cls] = "concurrency_limit"
            return False
        if not self._is_walled(head):
            if self._load(head):
                self.reasons.pop(head.cls, None)
                return True
            self._make_room(head)
        self.reasons[head.cls] = self._reason(head)
        return False

    def _reason(self, head: Head) -> Reason:
        for room in self._lane(head):
            need = self.view.need_on(head.cls, room.slot)
            if room.slot.is_open and room.left > 0 and 0 < need <= room.slot.device.cap_bytes:
                return "waiting_for_memory"
        return "waiting_for_device"

    # Warm starts.

    def _warm_first(self, head: Head) -> bool:
        """A warm start, if it leaves alone what older ones could have now or what others were sent away
        for; who finds none keeps just that for itself while the younger ones look."""
        claims = list(head.claims)
        head.unclaim()
        if self._warm(head):
            return True
        for room, nbytes in claims:
            head.claim(room, nbytes)
        if not claims:
            self._claim(head)
        return False

    def _warm(self, head: Head) -> bool:
        cls, view = head.cls, self.view
        of_key = view.floor.by_key.get(cls.key)
        if of_key is None:
            return False
        depth = 1 if head.need is None else view.depths.get((cls.handler, cls.version), 1)
        if cls.key in view.floor.idle_by_key and not self._at_limit(cls.handler) and self._wake(head, depth):
            return True
        return depth > 1 and not cls.alone and self._stage(head, of_key, depth)

    def _wake(self, head: Head, depth: int) -> bool:
        """Hand jobs to an idle executor, the last used one first; short ones are shared out evenly."""
        view = self.view
        fresh = self._fresh(head.cls)
        for resident in reversed(fresh):
            rooms = [self._room(view.floor.slots[each]) for each in resident.devices]
            extra = view.ledger.extra_bytes(resident.executor)
            if not all(head.may_use(room, resident.grant_bytes) and room.has(extra) for room in rooms):
                continue
            count = 1 if head.cls.alone else min(resident.room(depth), -(-head.waiting // len(fresh)))
            if not self._hand(head, resident, rooms, count, opens=1):
                continue
            self.busy[head.cls.handler] = self.busy.get(head.cls.handler, 0) + 1
            for room in rooms:
                room.left -= 1
                room.free -= extra
                if resident.exclusive or head.cls.alone:
                    room.exclusive = resident.executor
            return True
        return False

    def _fresh(self, cls: JobClass) -> list[Resident]:
        """Idle executors that are granted enough for the class and not yet used by this plan."""
        idle = self.view.floor.idle_by_key.get(cls.key)
        if idle is None:
            return []
        return [
            resident
            for executor, resident in idle.items()
            if executor not in self.touched and not resident.worn and self.view.suits(resident, cls)
        ]

    def _stage(self, head: Head, of_key: dict[int, Resident], depth: int) -> bool:
        """Hand more jobs to an executor that runs, the one with most room first."""
        roomy = [
            (self.touched.get(executor, 0) - resident.room(depth), executor, resident)
            for executor, resident in of_key.items()
            if (resident.state == "running" or self.touched.get(executor))
            and self.view.suits(resident, head.cls)
        ]
        roomy.sort()
        for full, _, resident in roomy:
            if full >= 0:
                break
            rooms = [self._room(self.view.floor.slots[each]) for each in resident.devices]
            if all(room.admits_more(resident) for room in rooms) and self._hand(
                head, resident, rooms, -full, opens=0
            ):
                return True
        return False

    def _hand(self, head: Head, resident: Resident, rooms: Sequence[Room], count: int, *, opens: int) -> bool:
        """Hand over as many of the next jobs as may overtake those before them; False for none."""
        ns = self._allowed(head, head.peek(count), rooms, resident.grant_bytes, opens)
        if not ns:
            return False
        self._overtake(head, ns, rooms, resident.grant_bytes, opens)
        self.actions.append(Start(resident.executor, head.cls, tuple(ns)))
        self.touched[resident.executor] = self.touched.get(resident.executor, 0) + len(ns)
        head.advance(len(ns))
        return True

    # New executors.

    def _load(self, head: Head) -> bool:
        """Load a new executor, where one fits."""
        fit = self._fit(head)
        if fit is None:
            return False
        cls, (rooms, grant), unknown = head.cls, fit, head.need is None
        self._overtake(head, [head.n], rooms, grant, 1)
        for room in rooms:
            room.left -= 1
            room.free -= grant
            room.residents += 1
            if unknown or cls.alone:
                room.exclusive = -1
        self.busy[cls.handler] = self.busy.get(cls.handler, 0) + 1
        ids = tuple(room.slot.device.id for room in rooms)
        self.actions.append(Load(cls, head.n, ids, grant, unknown))
        head.advance(1)
        return True

    def _fit(self, head: Head) -> tuple[list[Room], int] | None:
        """Where a new executor fits now, so that the least is left over (an unknown need: where most is
        free), and its grant on each device."""
        view = self.view
        unknown = head.need is None
        options: list[tuple[int, str, Room, int]] = []
        for room in self._lane(head):
            need = view.need_on(head.cls, room.slot)
            if room.has_for_new(need, alone=head.cls.alone) and self._may_open(head, room, need):
                grant = room.avail if unknown else need
                rank = -room.avail if unknown else -room.left if need == 0 else room.avail - need
                options.append((rank, room.slot.device.id, room, grant))
        span = view.floor.span(head.cls)
        if len(options) < span:
            return None
        best = sorted(options, key=lambda option: option[:2])[:span]
        return [room for _, _, room, _ in best], min(grant for *_, grant in best)

    # Making room.

    def _claim(self, head: Head) -> None:
        if head.need == 0 or self._at_limit(head.cls.handler) or self._is_walled(head):
            return
        if not any(room.pending or room.slot.idle for room in self._lane(head)):
            return
        fit = self._fit(head)
        if fit is None:
            self._make_room(head, only_claim=True)
            return
        for room in fit[0]:
            head.claim(room, self.view.need_on(head.cls, room.slot))

    def _make_room(self, head: Head, *, only_claim: bool = False) -> None:
        """Tell idle executors to go where that lets the head start, and claim what they leave. Nobody
        is sent away where enough is coming already, or where it would not be enough."""
        fresh = self._fresh(head.cls)
        found = [way for resident in fresh if (way := self._way_to_wake(head, resident))]
        way = min(found, key=Way.cost, default=None)
        # An executor of the head's own kind goes only where nothing else helps.
        way = way or self._way_to_load(head, {resident.executor for resident in fresh})
        way = way or (self._way_to_load(head, set()) if fresh else None)
        if way is None:
            self._wall(head)
            return
        if way.victims and only_claim:
            return
        for executor, nbytes in way.victims.items():
            self.touched[executor] = 0
            self.actions.append(Evict(executor))
            for each in self.view.executors[executor].devices:
                room = self._room(self.view.floor.slots[each])
                room.pending += nbytes
                room.leaving += 1
        for room, nbytes in way.claims:
            head.claim(room, nbytes)

    def _way_to_wake(self, head: Head, resident: Resident) -> Way | None:
        """Who must go so that an idle executor gets its whole grant back."""
        way = Way({}, [])
        extra = self.view.ledger.extra_bytes(resident.executor)
        for each in resident.devices:
            room = self._room(self.view.floor.slots[each])
            grant = resident.grant_bytes
            if not head.may_use(room, grant) or not self._may_open(head, room, grant):
                return None
            victims = self._victims(room, extra, {resident.executor})
            if victims is None:
                return None
            way.victims.update(victims)
            way.claims.append((room, extra))
        return way

    def _way_to_load(self, head: Head, keep: set[int]) -> Way | None:
        """Who must go so that a new executor fits, on the devices where least must."""
        ways: list[Way] = []
        for room in self._lane(head):
            need = self.view.need_on(head.cls, room.slot)
            if head.may_use(room, need):
                victims = self._victims(room, need, keep, is_new=True)
                if victims is not None and self._may_open(head, room, need):
                    ways.append(Way(victims, [(room, need)]))
        span = self.view.floor.span(head.cls)
        if len(ways) < span:
            return None
        whole = Way({}, [])
        for way in sorted(ways, key=Way.cost)[:span]:
            whole.victims.update(way.victims)
            whole.claims.extend(way.claims)
        return whole

    def _victims(
        self, room: Room, nbytes: int, keep: set[int], *, is_new: bool = False
    ) -> dict[int, int] | None:
        """Idle executors (and their bytes) that must go from a device so that so many bytes, and a
        place for a new executor, are coming; None where that can't be had."""
        charge = self.view.ledger.charge_bytes
        lacking = nbytes - room.coming if nbytes > 0 else 0
        at_least = 1 if is_new and room.is_crowded else 0
        victims: dict[int, int] = {}
        for executor in room.spare(self.touched):
            if lacking <= 0 and len(victims) >= at_least:
                break
            if executor not in keep:
                victims[executor] = charge(executor)
                lacking -= victims[executor]
        if lacking > 0 or len(victims) < at_least:
            return None
        # A later, larger one may have made the first ones needless.
        for executor, freed in list(victims.items()):
            if len(victims) > at_least and lacking + freed <= 0:
                lacking += victims.pop(executor)
        return victims

    # Figures of this plan.

    def _room(self, slot: Slot) -> Room:
        room = self.rooms.get(slot.device.id)
        if room is None:
            room = self.rooms[slot.device.id] = Room(self.view, slot)
        return room

    def _lane(self, head: Head) -> list[Room]:
        return [self._room(slot) for slot in head.lane]

    def _is_walled(self, head: Head) -> bool:
        """Whether one that needs no more was tried in vain. An idle executor of its own is another matter."""
        need = head.cls.need_bytes
        if need is None or head.cls.key in self.view.floor.idle_by_key:
            return False
        wall = self.walls.get((head.cls.gpus > 0, self.view.floor.span(head.cls)))
        return wall is not None and need >= wall

    def _wall(self, head: Head) -> None:
        if head.cls.need_bytes is not None:
            place = head.cls.gpus > 0, self.view.floor.span(head.cls)
            self.walls[place] = min(head.cls.need_bytes, self.walls.get(place, head.cls.need_bytes))

    def _at_limit(self, handler: str) -> bool:
        limit = self.view.limits.get(handler)
        return limit is not None and self.view.floor.busy.get(handler, 0) + self.busy.get(handler, 0) >= limit

    # Who may overtake whom.

    def _may_open(self, head: Head, room: Room, nbytes: int) -> bool:
        return bool(self._allowed(head, [head.n], [room], nbytes, 1))

    def _harmed(
        self, head: Head, ns: Sequence[int], rooms: Sequence[Room], nbytes: int, opens: int
    ) -> Iterator[Head]:
        """Those whom these jobs, set to work in these rooms, would overtake."""
        if nbytes <= 0 and all(room.left - opens > 0 for room in rooms):
            return
        for guard in self.guards:
            if (
                guard.is_harmed(rooms, nbytes, opens)
                and guard.times_passed(head.cls, ns)
                and not self._at_limit(guard.cls.handler)
            ):
                yield guard

    def _allowed(
        self, head: Head, ns: list[int], rooms: Sequence[Room], nbytes: int, opens: int
    ) -> list[int]:
        """The first of these jobs, as many as nobody need mind."""
        for guard in self._harmed(head, ns, rooms, nbytes, opens):
            while ns and guard.times_passed(head.cls, ns) > max(0, guard.remaining):
                ns = ns[:-1]
        return ns

    def _overtake(self, head: Head, ns: list[int], rooms: Sequence[Room], nbytes: int, opens: int) -> None:
        """These jobs start: count it for those whom they overtake."""
        for guard in self._harmed(head, ns, rooms, nbytes, opens):
            guard.remaining -= guard.times_passed(head.cls, ns)
