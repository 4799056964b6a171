"""A plan looks at the first of many waiting classes only, and starts what it would start if it saw all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu.devices.device import cpu, sim
from gpu.job_class import JobClass
from gpu.planning.explain import find_wait_kind, find_wait_reason
from gpu.planning.planner import plan
from gpu.scheduling.class_order import PLACED_PER_PLAN, WINDOW_CLASSES, ClassOrder, Place, Placement
from tests.gpu.planner_harness import G, PlannerHarness, make_class

DEVICES = (sim(0, 24 * G), cpu("m", "c", 16 * G, 2))
MANY = 1_000
#: At most this many classes are looked at in a plan, whatever waits.
LOOKED_AT_MAX = 8 * WINDOW_CLASSES


class CountedOrder(ClassOrder):
    """An order that counts the classes at which plans look and those that it places."""

    def __init__(self) -> None:
        super().__init__()
        self.placed = self.looked_at = 0

    def refresh(self, now: float, place: Place) -> None:
        def counted(job_class: JobClass, as_of: float) -> Placement:
            self.placed += 1
            return place(job_class, as_of)

        super().refresh(now, counted)

    def select(self, *args: object) -> object:  # type: ignore[override]
        selection = super().select(*args)  # type: ignore[arg-type]
        self.looked_at += len(selection.classes)
        return selection


def waiting_class(kind: str, number: int) -> JobClass:
    """One of many: of a tenant, a queue or a model of its own, or of a handler at its limit."""
    if kind == "limit":
        return replace(make_class("lim", 0, gpus=0, priority=40), queue=f"q{number}")
    changes = {kind: f"x{number}"}
    return replace(make_class("w", 10 * G, priority=40), **changes)  # type: ignore[arg-type]


def crowd(kind: str, count: int = MANY) -> PlannerHarness:
    """Many classes wait for a device that one job fills, beside a warm class of the cpu."""
    harness = PlannerHarness(*DEVICES)
    harness.state.backlog.order = CountedOrder()
    harness.add_running(make_class("hog", 20 * G))
    harness.state.limits.set_handler_limit("lim", 0)
    harness.add_idle(make_class("warm", 0, gpus=0))
    for number in range(count):
        harness.submit(waiting_class(kind, number))
    harness.plan_and_apply()
    return harness


@pytest.mark.parametrize("kind", ["tenant", "queue", "model", "limit"])
def test_a_plan_looks_at_a_few_of_many_and_starts_the_warm_one(kind: str) -> None:
    harness = crowd(kind)
    order = harness.state.backlog.order
    assert isinstance(order, CountedOrder) and order.placed <= MANY + 1
    order.placed = order.looked_at = 0
    for _ in range(20):
        (job_number,) = harness.submit(make_class("warm", 0, gpus=0))
        harness.plan_and_apply()
        assert harness.started[-1] == job_number
        harness.finish(2)
        harness.now += 0.001
    assert order.placed <= 20 and order.looked_at <= 20 * LOOKED_AT_MAX


def test_no_plan_of_a_busy_server_ranks_all_that_wait() -> None:
    harness = crowd("tenant")
    order = harness.state.backlog.order
    assert isinstance(order, CountedOrder)
    placed: list[int] = []
    for _ in range(200):
        order.placed = 0
        harness.submit(make_class("warm", 0, gpus=0))
        harness.plan_and_apply()
        harness.finish(2)
        harness.now += 0.01
        placed.append(order.placed)
    assert max(placed) <= PLACED_PER_PLAN + 1 < MANY <= sum(placed)


def test_the_highest_priority_is_next_however_many_wait() -> None:
    harness = crowd("tenant")
    (job_number,) = harness.submit(make_class("urgent", 10 * G, priority=99))
    harness.finish(1)
    harness.plan_and_apply()
    harness.remove_leaving()
    harness.plan_and_apply()
    assert job_number in harness.started


def test_one_tenant_with_many_queues_is_not_first_with_all_of_them() -> None:
    harness = crowd("tenant", 0)
    harness.state.limits.set_handler_limit("lim", None)
    for number in range(100):
        harness.submit(replace(make_class("w", 10 * G), tenant="many", queue=f"q{number}"))
    for number in range(100):
        harness.submit(replace(make_class("w", 10 * G), tenant=f"t{number}"))
    harness.finish(1)
    tenants: list[str] = []
    for _ in range(30):
        harness.now += 0.001
        harness.plan_and_apply()
        harness.remove_leaving()
        for executor in [each for each in harness.state.executors.values() if each.assigned]:
            tenants += [each.tenant for each in executor.assigned.values()]
            harness.now += 0.001
            harness.finish(executor.executor)
    assert len(tenants) >= 30 and tenants[-10:].count("many") <= 3


def test_a_paused_queue_costs_nothing_and_its_classes_come_back() -> None:
    harness = crowd("model", 200)
    harness.state.backlog.pause_queue("default", True)
    harness.state.backlog.pause_queue("default", True)
    assert list(harness.state.backlog.order.classes) == [] and harness.plan_and_apply().reasons == {}
    harness.state.backlog.pause_queue("default", False)
    assert len(harness.state.backlog.order.classes) == 200
    assert harness.plan_and_apply().is_partial


def test_classes_that_wait_at_a_limit_start_once_it_is_raised() -> None:
    harness = crowd("limit", 200)
    harness.state.limits.set_handler_limit("lim", 2)
    assert len(harness.plan_and_apply().actions) == 2


def test_one_that_fits_is_found_behind_many_that_do_not() -> None:
    harness = crowd("queue", 500)
    (job_number,) = harness.submit(replace(make_class("small", 2 * G, priority=10), limit_s=1.0))
    harness.plan_and_apply()
    assert job_number in harness.started


def test_jobs_of_many_queues_are_staged_at_a_busy_executor() -> None:
    harness = crowd("model", 100)
    harness.state.limits.set_stage_depth("warm", "1", 4)
    for number in range(6):
        harness.submit(replace(make_class("warm", 0, gpus=0, priority=1), queue=f"w{number}"))
    harness.plan_and_apply()
    assert len(harness.state.executors[2].assigned) == 4


def test_the_reason_of_a_class_at_which_no_plan_looked_is_found() -> None:
    harness = crowd("queue", 100)
    unseen = [
        each for each in harness.state.backlog.classes() if each not in harness.plan_and_apply().reasons
    ]
    assert len(unseen) >= 50
    assert {find_wait_reason(harness.state, each) for each in unseen} == {"waiting_for_memory"}


NEEDS = st.sampled_from([0, 1 * G, 3 * G, 11 * G, 20 * G, None])
CLASSES = st.builds(
    JobClass,
    queue=st.sampled_from([f"q{number}" for number in range(8)]),
    handler=st.sampled_from(["a", "b", "c"]),
    version=st.just("1"),
    model=st.sampled_from(["", "m"]),
    priority=st.sampled_from([40, 50]),
    need_bytes=NEEDS,
    gpus=st.sampled_from([0, 1, 1, 2]),
    tenant=st.sampled_from(["", "t1", "t2"]),
    limit_s=st.sampled_from([1.0, 100.0, float("inf")]),
)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), CLASSES),
        st.tuples(st.just("finish"), st.integers(0, 20)),
        st.tuples(st.just("limit"), st.sampled_from([None, 1, 2])),
        st.tuples(st.just("pause"), st.booleans()),
        st.tuples(st.just("stage"), st.sampled_from([1, 4])),
        st.tuples(st.just("later"), st.sampled_from([1.0, 70.0])),
    ),
    min_size=5,
    max_size=40,
)


def play(harness: PlannerHarness, event: tuple[str, object]) -> None:
    kind, value = event
    state = harness.state
    if kind == "submit" and isinstance(value, JobClass) and state.memory_needs.misfit(value) is None:
        harness.submit(value)
    elif kind == "finish" and state.executors:
        executors = sorted(state.executors)
        harness.finish(executors[value % len(executors)])  # type: ignore[operator]
    elif kind == "limit":
        state.limits.set_handler_limit("a", value)  # type: ignore[arg-type]
    elif kind == "stage":
        state.limits.set_stage_depth("b", "1", value)  # type: ignore[arg-type]
    elif kind == "pause":
        state.backlog.pause_queue("q1", bool(value))
    elif kind == "later":
        harness.now += value  # type: ignore[operator]


@settings(max_examples=150, deadline=None)
@given(events=EVENTS)
def test_a_plan_that_looks_at_the_first_only_starts_what_one_that_sees_all_does(
    events: list[tuple[str, object]],
) -> None:
    """Each list holds all classes here, so that only the way to find them differs."""
    straightforward, ordered = PlannerHarness(*DEVICES), PlannerHarness(*DEVICES)
    ordered.state.backlog.order = ClassOrder(exact=0, window=1_000)
    for event in events:
        for harness in (straightforward, ordered):
            play(harness, event)
        # At one moment the same state gives the same plan.
        ordered.state.backlog.order.reorder()
        made, expected = plan(ordered.state, ordered.now), plan(straightforward.state, straightforward.now)
        assert made.actions == expected.actions
        for harness in (straightforward, ordered):
            harness.apply(expected)
            harness.remove_leaving()


@settings(max_examples=150, deadline=None)
@given(events=EVENTS, window=st.sampled_from([2, 8]))
def test_with_a_narrow_window_all_that_can_start_does(events: list[tuple[str, object]], window: int) -> None:
    """Once nothing more starts, a plan that sees all starts nothing either."""
    harness = PlannerHarness(*DEVICES)
    order = harness.state.backlog.order = ClassOrder(exact=0, window=window)
    for event in events:
        play(harness, event)
        while True:
            made = harness.plan_and_apply()
            harness.remove_leaving()
            if not made.actions:
                break
        order.exact = 1_000
        assert plan(harness.state, harness.now).actions == []
        order.exact = 0


@settings(max_examples=150, deadline=None)
@given(events=EVENTS)
def test_classes_of_one_kind_wait_for_one_reason(events: list[tuple[str, object]]) -> None:
    harness = PlannerHarness(*DEVICES)
    for event in events:
        play(harness, event)
        harness.plan_and_apply()
        harness.remove_leaving()
        found: dict[object, str] = {}
        for job_class in harness.state.backlog.order.classes:
            reason = find_wait_reason(harness.state, job_class)
            assert found.setdefault(find_wait_kind(harness.state, job_class), reason) == reason


@pytest.mark.parametrize("field", ["tenant", "queue", "model"])
def test_many_classes_are_of_one_kind(field: str) -> None:
    harness = crowd(field, 100)
    kinds = {find_wait_kind(harness.state, each) for each in harness.state.backlog.classes()}
    assert len(kinds) == 1
