"""When a job waits for a warm executor instead of loading another, and who goes when somebody must."""

from __future__ import annotations

from dataclasses import replace

from gpu.devices.device import sim
from gpu.job_class import JobClass
from gpu.planning.candidate import AGEING_S
from tests.gpu.planner_harness import G, PlannerHarness, describe_actions, make_class

A, B = make_class("a", 6 * G), make_class("b", 6 * G)


def record_times(harness: PlannerHarness, job_class: JobClass, load_s: float, run_s: float) -> None:
    """Some have loaded and run."""
    harness.state.estimator.record_load(job_class.key, None, load_s)
    for _ in range(10):
        harness.state.record_run(job_class, None, run_s)


def test_a_job_waits_for_a_warm_executor_that_is_free_long_before_another_has_loaded() -> None:
    harness = PlannerHarness()
    record_times(harness, A, load_s=60, run_s=2)
    executor = harness.add_running(A)
    (job_number,) = harness.submit(A)
    made = harness.plan_and_apply()
    assert describe_actions(made) == [] and made.reasons[A] == "waiting_for_memory"
    harness.finish(executor)
    assert describe_actions(harness.plan_and_apply()) == [f"start {executor}: {job_number}"]


def test_it_loads_another_where_that_is_ready_earlier() -> None:
    harness = PlannerHarness()
    record_times(harness, A, load_s=2, run_s=60)
    harness.add_running(A)
    harness.submit(A)
    assert describe_actions(harness.plan_and_apply()) == ["load a 2 on sim0 6G"]


def test_many_that_wait_load_others_until_the_last_need_not_wait_long() -> None:
    harness = PlannerHarness(sim(0, 24 * G))
    record_times(harness, A, load_s=20, run_s=5)
    harness.add_running(A)
    harness.submit(A, 9)
    assert len(describe_actions(harness.plan_and_apply())) == 3


def test_with_room_for_all_a_second_one_loads_sooner_than_without() -> None:
    roomy, full = PlannerHarness(sim(0, 24 * G)), PlannerHarness(sim(0, 24 * G, 2))
    for harness in (roomy, full):
        record_times(harness, A, load_s=10, run_s=7)
        harness.add_running(A)
        harness.submit(A)
    assert describe_actions(roomy.plan_and_apply()) == ["load a 2 on sim0 6G"]
    assert describe_actions(full.plan_and_apply()) == []


def test_one_that_loads_is_free_only_when_it_has_loaded_and_run() -> None:
    harness = PlannerHarness()
    record_times(harness, A, load_s=20, run_s=5)
    harness.submit(A)
    harness.plan_and_apply()
    harness.submit(A)
    assert describe_actions(harness.plan_and_apply()) == ["load a 2 on sim0 6G"]


def test_who_is_asked_for_least_goes_and_not_who_was_used_last() -> None:
    harness = PlannerHarness(sim(0, 12 * G))
    for _ in range(50):
        harness.add_idle(A)
    harness.add_idle(B)
    harness.submit(make_class("c", 6 * G))
    assert describe_actions(harness.plan_and_apply()) == ["evict 2"]


def test_nobody_goes_for_a_job_whose_warm_executor_is_free_soon() -> None:
    harness = PlannerHarness(sim(0, 12 * G))
    record_times(harness, A, load_s=30, run_s=5)
    harness.add_idle(B)
    harness.add_running(A)
    harness.submit(A)
    assert describe_actions(harness.plan_and_apply()) == []


def test_a_warm_start_out_of_turn_must_spare_a_load() -> None:
    for load_s, first in ((0.0, "load b"), (30.0, "start 1")):
        harness = PlannerHarness(sim(0, 24 * G, 1))
        executor = harness.add_idle(A)
        record_times(harness, A, load_s=load_s, run_s=5)
        harness.submit(B)
        harness.submit(A)
        assert describe_actions(harness.plan_and_apply())[0].startswith(first)
        assert executor == 1


def limited(name: str, need: int, limit_s: float, gpus: int = 1) -> JobClass:
    return replace(make_class(name, need, gpus=gpus), limit_s=limit_s)


def test_who_surely_ends_before_a_reserved_start_goes_first_and_uncounted() -> None:
    harness = PlannerHarness()
    harness.add_running(limited("x", 12 * G, 100.0))
    (big,) = harness.submit(limited("big", 24 * G, 1000.0))
    harness.submit(limited("long", 6 * G, 200.0))
    harness.submit(limited("short", 6 * G, 50.0))
    assert describe_actions(harness.plan_and_apply()) == ["load short 4 on sim0 6G"]
    assert harness.state.overtakes.counts == {}
    assert big not in harness.started


def test_of_two_that_fit_in_the_shorter_one_goes_first() -> None:
    harness = PlannerHarness()
    harness.add_running(limited("x", 12 * G, 100.0))
    harness.submit(limited("big", 24 * G, 1000.0))
    harness.submit(limited("a", 12 * G, 90.0))
    harness.submit(limited("b", 12 * G, 20.0))
    assert describe_actions(harness.plan_and_apply()) == ["load b 4 on sim0 12G"]


def test_a_gang_gets_the_devices_that_are_free_first() -> None:
    harness = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G), sim(2, 24 * G))
    for limit_s in (500.0, 50.0, 60.0):
        harness.add_running(limited("x", 20 * G, limit_s))
    harness.submit(limited("gang", 20 * G, 1000.0, gpus=2))
    harness.submit(limited("y", 4 * G, 300.0), 2)
    assert describe_actions(harness.plan_and_apply()) == ["load y 5 on sim0 4G", "load y 6 on sim1 4G"], (
        "beside the gang there is room"
    )
    assert harness.state.overtakes.counts == {}


def test_older_ones_of_a_lower_priority_catch_up_by_waiting() -> None:
    for waited_s, first in ((AGEING_S * 5, "b"), (AGEING_S * 15, "a")):
        harness = PlannerHarness(sim(0, 24 * G, 1))
        harness.submit(make_class("a", priority=50))
        harness.now = waited_s
        harness.submit(make_class("b", priority=60))
        assert describe_actions(harness.plan_and_apply())[0].startswith(f"load {first}")


def test_what_a_pinned_executor_holds_is_not_counted_on_for_a_reservation() -> None:
    harness = PlannerHarness()
    harness.keep_alive_s["x"] = -1
    harness.add_running(limited("x", 6 * G, 100.0))
    harness.add_running(limited("y", 12 * G, 50.0))
    harness.submit(limited("big", 18 * G, 1000.0))
    harness.submit(limited("long", 6 * G, 80.0))
    harness.submit(limited("short", 6 * G, 20.0))
    assert describe_actions(harness.plan_and_apply()) == ["load short 5 on sim0 6G"]


def test_between_tenants_the_order_follows_what_each_is_given() -> None:
    harness = PlannerHarness()
    for name, tenant in (("a", "one"), ("b", "one"), ("c", "two")):
        harness.submit(replace(make_class(name), tenant=tenant))
    assert describe_actions(harness.plan_and_apply()) == [
        f"load {name} on sim0 6G" for name in ("a 1", "c 3", "b 2")
    ]


def test_who_is_loaded_again_soonest_goes_first() -> None:
    harness = PlannerHarness(sim(0, 12 * G))
    harness.add_idle(A)
    harness.add_idle(B)
    record_times(harness, A, load_s=60, run_s=1)
    record_times(harness, B, load_s=1, run_s=1)
    harness.submit(make_class("c", 6 * G))
    assert describe_actions(harness.plan_and_apply()) == ["evict 2"]


def test_nobody_waits_for_an_executor_that_was_granted_too_little() -> None:
    harness = PlannerHarness()
    large = make_class("a", 10 * G)
    record_times(harness, A, load_s=60, run_s=2)
    harness.add_running(A)
    harness.submit(large)
    assert describe_actions(harness.plan_and_apply()) == ["load a 2 on sim0 10G"]


def test_an_idle_one_is_waited_for_until_its_device_has_a_place() -> None:
    harness = PlannerHarness(sim(0, 24 * G, 1), sim(1, 24 * G, 1))
    harness.add_idle(A)
    harness.state.set_device_open("sim1", False)
    harness.add_running(B)
    harness.state.set_device_open("sim1", True)
    record_times(harness, A, load_s=60, run_s=2)
    harness.submit(A)
    assert describe_actions(harness.plan_and_apply()) == []
    harness.finish(2)
    assert describe_actions(harness.plan_and_apply()) == ["start 1: 3"]


def test_a_class_stages_into_the_places_that_another_has_left_meanwhile() -> None:
    harness = PlannerHarness(sim(0, 24 * G))
    harness.add_running(A)
    harness.add_running(A)
    harness.state.limits.set_stage_depth("a", "1", 4)
    # Tenants take turns: the one job of the second takes a place that the first had counted as free.
    harness.submit(replace(A, tenant="first"), 9)
    harness.submit(replace(A, tenant="second"), 1)
    staged = describe_actions(harness.plan_and_apply())[:3]
    assert staged == ["start 1: 3,4,5", "start 2: 12", "start 2: 6,7"]
