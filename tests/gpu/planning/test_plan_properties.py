"""What must hold whatever happens in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gpu.devices.device import cpu, sim
from gpu.job_class import JobClass
from gpu.planning.candidate import AGEING_S
from gpu.planning.planner import LoadAction, StartAction, plan
from gpu.scheduling.capacity_snapshot import CapacityTable
from gpu.scheduling.prewarm_class import prewarm_class
from tests.gpu.planner_harness import G, PlannerHarness, make_class

NEEDS = st.sampled_from([0, 1 * G, 3 * G, 6 * G, 11 * G, 20 * G, None])
CLASSES = st.builds(
    JobClass,
    queue=st.sampled_from(["q1", "q2"]),
    handler=st.sampled_from(["a", "b", "c"]),
    version=st.just("1"),
    model=st.sampled_from(["", "m"]),
    priority=st.sampled_from([40, 50]),
    need_bytes=NEEDS,
    gpus=st.sampled_from([0, 1, 1, 1, 2]),
)
DEVICES = st.sampled_from(
    [
        (sim(0, 24 * G),),
        (sim(0, 24 * G, 2), sim(1, 12 * G, 1)),
        (sim(0, 8 * G), sim(1, 8 * G), cpu("m", "c", 16 * G, 2)),
        (cpu("m", "c", 16 * G, 2),),
        (sim(0, 24 * G, 2, 3), cpu("m", "c", 16 * G, 2, 2, 3)),
        (cpu("m", "c", 16 * G, 2, 2, 1),),
    ]
)


def _capacity_figures(index: CapacityTable) -> list[object]:
    return [
        (
            {place: room.sort_keys for place, room in sorted(shelf.capacities.items())},
            [
                room.slot.order
                for room in (*shelf.best_fit(0), *shelf.after_eviction(0), *shelf.most_places())
            ],
            (shelf.open_count, shelf.freeing_count),
        )
        for shelves in index.pools.values()
        for _, shelf in sorted(shelves.items())
    ]


class PlannerMachine(RuleBasedStateMachine):
    """Random life of a coordinator; executors use any share of what they were granted."""

    @initialize(devices=DEVICES, limit=st.sampled_from([1, 3, 8]))
    def begin(self, devices: tuple[object, ...], limit: int) -> None:
        self.harness = PlannerHarness(*devices, bypass_limit=limit)  # type: ignore[arg-type]
        self.waiting: set[int] = set()

    @rule(cls=CLASSES, count=st.integers(1, 4))
    def submit(self, cls: JobClass, count: int) -> None:
        if self.harness.state.memory_needs.misfit(cls) is None:
            self.waiting.update(self.harness.submit(cls, count))

    @rule(
        handler=st.sampled_from(["a", "b", "c"]),
        need=NEEDS,
        gpus=st.sampled_from([0, 1, 2]),
        device=st.sampled_from([None, "sim0"]),
        is_preload=st.booleans(),
    )
    def prewarm(
        self, handler: str, need: int | None, gpus: int, device: str | None, is_preload: bool
    ) -> None:
        state = self.harness.state
        job_class = prewarm_class(
            handler, "1", "", need_bytes=need, gpus=gpus, device_id=device, is_preload=is_preload
        )
        if state.memory_needs.misfit(job_class) is None and job_class not in state.backlog.by_class:
            job_number = -1 - len(self.harness.classes)
            self.harness.classes[job_number] = job_class
            state.add_waiting(job_class, job_number, since=self.harness.now)
            self.waiting.add(job_number)

    @rule(handler=st.sampled_from(["a", "b", "c"]), depth=st.integers(1, 20))
    def stage(self, handler: str, depth: int) -> None:
        self.harness.state.limits.set_stage_depth(handler, "1", depth)

    @rule(handler=st.sampled_from(["a", "b", "c"]), limit=st.sampled_from([None, 1, 2]))
    def limit(self, handler: str, limit: int | None) -> None:
        self.harness.state.limits.set_handler_limit(handler, limit)

    @rule(queue=st.sampled_from(["q1", "q2"]), paused=st.booleans())
    def pause(self, queue: str, paused: bool) -> None:
        self.harness.state.backlog.pause_queue(queue, paused)

    @rule(handler=st.sampled_from(["a", "b", "c"]), keep=st.sampled_from([0.0, 5.0, 300.0, -1.0]))
    def keep_alive(self, handler: str, keep: float) -> None:
        self.harness.keep_alive_s[handler] = keep

    @rule(data=st.data())
    def plan_and_apply(self, data: st.DataObject) -> None:
        before = len(self.harness.started)
        made = plan(self.harness.state, self.harness.now)
        assert made == plan(self.harness.state, self.harness.now)
        for action in made.actions:
            if isinstance(action, LoadAction):
                # All of its devices at once, or none.
                span = self.harness.state.residency.device_count(action.job_class)
                assert len(set(action.device_ids)) == len(action.device_ids) == span
        self.harness.apply(made)
        self.waiting -= set(self.harness.started[before:])
        assert set(made.reasons) == set(self.harness.state.backlog.order.classes)

    @precondition(lambda self: self.harness.state.executors)
    @rule(data=st.data(), used=st.floats(0, 1), dies=st.booleans())
    def an_executor_finishes(self, data: st.DataObject, used: float, dies: bool) -> None:
        harness, state = self.harness, self.harness.state
        executor = data.draw(st.sampled_from(sorted(state.executors)))
        resident = state.executors[executor]
        harness.now += 1
        harness.finish(executor)
        peak = int(used * state.ledger.grant_bytes(executor))
        state.ledger.usage.record_total(executor, peak * len(resident.devices))
        if resident.exclusive and used > 0.5:
            state.record_run(make_class(resident.key[0], None), peak, None)
        if dies:
            assert state.on_executor_gone(executor, harness.now) == []

    @precondition(lambda self: self.harness.state.executors)
    @rule(data=st.data())
    def an_executor_gives_back(self, data: st.DataObject) -> None:
        state = self.harness.state
        executor = data.draw(st.sampled_from(sorted(state.executors)))
        resident = state.executors[executor]
        staged = list(resident.assigned.items())[1:]
        if resident.state == "running" and staged:
            job_class = staged[-1][1]
            job_numbers = [job_number for job_number, of in staged if of is job_class]
            self.harness.give_back(executor, job_class, job_numbers)
            self.waiting.update(job_numbers)

    @rule()
    def time_passes(self) -> None:
        self.harness.now += 10
        for executor in self.harness.state.idle_expiry.pop_due(self.harness.now):
            self.harness.state.evict(executor)
        when = self.harness.state.idle_expiry.next_at()
        assert when is None or when > self.harness.now

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_number = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.harness.state.remove_waiting(self.harness.classes[job_number], job_number)
        assert not self.harness.state.remove_waiting(self.harness.classes[job_number], job_number)
        self.waiting.discard(job_number)

    @rule()
    def those_told_to_go_are_gone(self) -> None:
        self.harness.remove_leaving()

    @invariant()
    def promises_fit(self) -> None:
        for slot in self.harness.state.residency.slots.values():
            ledger, device_id = self.harness.state.ledger, slot.device.id
            charges = sum(ledger.charge_bytes(executor) for executor in slot.residents)
            assert ledger.reserved_bytes(device_id) == charges <= slot.device.cap_bytes
            assert (
                slot.busy_count == sum(each.is_busy for each in slot.residents.values()) <= slot.max_executors
            )
            assert len(slot.residents) <= slot.max_residents
            assert len(slot.pinned) < slot.max_residents

    @invariant()
    def the_index_is_true(self) -> None:
        state = self.harness.state
        lines = {
            cls: [job_number for job_number in self.waiting if self.harness.classes[job_number] == cls]
            for cls in state.backlog.classes()
        }
        assert {cls: state.backlog.count(cls) for cls in lines} == {
            cls: len(job_numbers) for cls, job_numbers in lines.items()
        }
        assert sum(map(len, lines.values())) == len(self.waiting)
        idle = {each.executor for each in state.executors.values() if each.state == "idle"}
        assert {executor for of_key in state.residency.idle_by_key.values() for executor in of_key} == idle
        assert all(bool(each.assigned) <= each.is_busy for each in state.executors.values())
        for handler in {cls.handler for cls in self.harness.classes.values()}:
            residents = [each for each in state.executors.values() if each.key[0] == handler]
            assert state.limits.running.get(handler) == (
                sum(each.is_busy for each in residents),
                sum(len(each.assigned) for each in residents),
            )

    @invariant()
    def the_rooms_are_as_they_would_be_made_anew(self) -> None:
        state = self.harness.state
        state.capacity_table.refresh()
        anew = CapacityTable(state.ledger, state.residency, set(state.residency.slots))
        anew.refresh()
        assert _capacity_figures(state.capacity_table) == _capacity_figures(anew)

    @invariant()
    def nobody_is_overtaken_beyond_the_bound(self) -> None:
        bypass = self.harness.state.overtakes
        assert all(count <= bypass.limit for count in bypass.counts.values())
        assert set(bypass.kept_devices) <= set(bypass.counts) <= self.waiting

    def teardown(self) -> None:
        """When nothing new comes and everything that runs ends, all start that fit beside the pinned."""
        if not hasattr(self, "harness"):
            return
        harness = self.harness
        for queue in ("q1", "q2"):
            harness.state.backlog.pause_queue(queue, False)
        for _ in range(10 * len(self.waiting) + 10):
            harness.plan_and_apply()
            harness.remove_leaving()
            for executor in list(harness.state.executors):
                harness.finish(executor)
        # A preload has nobody go for it: it may wait for ever.
        assert [
            job_class
            for job_class in harness.state.backlog.classes()
            if job_class.may_evict and self._has_room(job_class)
        ] == []

    def _has_room(self, job_class: JobClass) -> bool:
        """It would fit beside the pinned executors, if everything else were gone."""
        state = self.harness.state
        slots = state.residency.candidate_devices(job_class)
        fitting = sum(state.memory_needs.fits_when_empty(job_class, slot) for slot in slots)
        return fitting >= state.residency.device_count(job_class)


TestPlanner = PlannerMachine.TestCase
TestPlanner.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


class OvertakingMachine(RuleBasedStateMachine):
    """Jobs that nobody knows much of and that never stop coming: counts overtaking by its own book."""

    LIMIT = 3
    #: Seconds of a round while others keep coming.
    ROUND_S = AGEING_S / 60
    #: Until a job of priority 40 has aged to 50, younger ones of 50 may start first.
    ROUNDS = int((50 - 40) * AGEING_S / ROUND_S) + 400

    @initialize(devices=DEVICES)
    def begin(self, devices: tuple[object, ...]) -> None:
        self.harness = PlannerHarness(*devices, bypass_limit=self.LIMIT)  # type: ignore[arg-type]
        self.overtaken: dict[int, int] = {}

    @rule(cls=CLASSES, count=st.integers(1, 6))
    def submit(self, cls: JobClass, count: int) -> None:
        if self.harness.state.memory_needs.misfit(cls) is None:
            self.harness.submit(cls, count)

    @rule(handler=st.sampled_from("abc"), depth=st.integers(1, 16))
    def stage(self, handler: str, depth: int) -> None:
        self.harness.state.limits.set_stage_depth(handler, "1", depth)

    @rule(share=st.floats(0, 1))
    def plan_and_apply(self, share: float) -> None:
        """Who was at work for longest ends; a share of those told to go are gone."""
        harness = self.harness
        harness.now += 1
        made = plan(harness.state, harness.now)
        for action in made.actions:
            if isinstance(action, StartAction | LoadAction):
                for passed in action.outlook.overtaken:
                    self.overtaken[passed.job_number] = (
                        self.overtaken.get(passed.job_number, 0) + passed.count
                    )
        harness.apply(made)
        busy = [each for each in harness.state.executors.values() if each.assigned]
        for resident in sorted(busy, key=lambda each: (each.busy_since, each.executor))[: 1 + int(2 * share)]:
            harness.finish(resident.executor)
        if share > 0.5:
            harness.remove_leaving()

    @invariant()
    def nobody_is_overtaken_more_than_the_bound(self) -> None:
        assert all(count <= self.LIMIT for count in self.overtaken.values())

    def teardown(self) -> None:
        """Whoever waits now starts, though others keep coming."""
        if not hasattr(self, "harness"):
            return
        waiting = {
            n
            for job_class in self.harness.state.backlog.classes()
            for n in self.harness.state.backlog.by_class[job_class].peek(99)
        }
        kinds = sorted({self.harness.classes[n] for n in self.harness.classes}, key=repr)
        for number in range(self.ROUNDS):
            if waiting <= set(self.harness.started):
                return
            self.harness.submit(kinds[number % len(kinds)])
            self.harness.now += self.ROUND_S - 1
            self.plan_and_apply(0.9)
        assert waiting <= set(self.harness.started)


class LongOvertakingMachine(OvertakingMachine):
    """The same with more examples."""


TestOvertaking = OvertakingMachine.TestCase
TestOvertaking.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestOvertakingAtLength = pytest.mark.slow(LongOvertakingMachine.TestCase)
TestOvertakingAtLength.settings = settings(TestOvertaking.settings, max_examples=60)
