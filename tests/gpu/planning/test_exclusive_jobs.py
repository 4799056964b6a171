"""Jobs that must be alone on their devices, and jobs that avoid a device."""

from __future__ import annotations

from dataclasses import replace

from gpu.devices.device import sim
from gpu.planning.explain import explain
from tests.gpu.planner_harness import G, PlannerHarness, describe_actions, make_class

A, B = make_class("a", 6 * G), make_class("b", 4 * G)
ALONE = replace(A, alone_on_device=True)


def test_who_must_be_alone_waits_until_nobody_is_at_work() -> None:
    harness = PlannerHarness()
    other = harness.add_running(B)
    harness.submit(ALONE)
    made = harness.plan_and_apply()
    assert describe_actions(made) == [] and made.reasons[ALONE] == "waiting_for_device"
    (device,) = explain(harness.state, ALONE, 2)["devices"]
    assert device["reason"] == "not_alone"
    harness.finish(other)
    assert describe_actions(harness.plan_and_apply()) == ["load a 2 on sim0 6G"]


def test_nothing_starts_beside_it_and_all_goes_on_after_it() -> None:
    harness = PlannerHarness()
    harness.submit(ALONE)
    harness.plan_and_apply()
    harness.submit(B)
    assert describe_actions(harness.plan_and_apply()) == []
    harness.finish(1)
    assert describe_actions(harness.plan_and_apply()) == ["load b 2 on sim0 4G"]


def test_an_idle_executor_of_its_kind_is_used_alone() -> None:
    harness = PlannerHarness()
    warm, other = harness.add_idle(A), harness.add_running(B)
    harness.submit(ALONE)
    assert describe_actions(harness.plan_and_apply()) == []
    harness.finish(other)
    harness.submit(ALONE)
    harness.submit(B)
    assert describe_actions(harness.plan_and_apply()) == [f"start {warm}: 3"], (
        "one of them, and nobody beside it"
    )
    harness.finish(warm)
    assert describe_actions(harness.plan_and_apply()) == [f"start {warm}: 4"]


def test_it_is_never_staged_behind_another() -> None:
    harness = PlannerHarness()
    harness.state.limits.set_stage_depth("a", "1", 16)
    harness.add_running(A)
    harness.submit(ALONE)
    assert describe_actions(harness.plan_and_apply()) == []


def test_who_needs_more_than_is_free_has_room_made_and_waits_for_the_rest() -> None:
    harness = PlannerHarness()
    harness.add_idle(B)
    harness.submit(replace(ALONE, need_bytes=22 * G))
    assert describe_actions(harness.plan_and_apply()) == ["evict 1"]
    harness.remove_leaving()
    assert describe_actions(harness.plan_and_apply()) == ["load a 2 on sim0 22G"]


def test_a_stream_of_others_does_not_keep_it_waiting_for_ever() -> None:
    harness = PlannerHarness(bypass_limit=3)
    harness.add_running(B)
    harness.add_running(B)
    harness.submit(ALONE)
    for _ in range(20):
        harness.submit(B)
        harness.plan_and_apply()
        harness.remove_leaving()
        busy = [executor for executor, each in harness.state.executors.items() if each.is_busy]
        # Never all at once: without a device kept for it, it would always find somebody at work.
        harness.finish(busy[0])
    assert 3 in harness.started


def test_a_device_that_is_avoided_is_left_while_another_takes_work() -> None:
    harness = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G))
    avoiding = replace(A, avoided_devices=("sim0",))
    harness.submit(avoiding)
    assert describe_actions(harness.plan_and_apply()) == ["load a 1 on sim1 6G"]
    harness.submit(avoiding)
    assert describe_actions(harness.plan_and_apply()) == ["load a 2 on sim1 6G"]


def test_a_warm_executor_on_it_is_not_taken_either() -> None:
    harness = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G))
    warm = harness.add_idle(A)
    assert harness.state.executors[warm].devices == ("sim0",)
    harness.submit(replace(A, avoided_devices=("sim0",)))
    assert describe_actions(harness.plan_and_apply()) == ["load a 2 on sim1 6G"]


def test_where_there_is_no_other_it_waits_until_that_one_was_tried_out() -> None:
    harness = PlannerHarness()
    harness.state.residency.slots["sim0"].is_proven = False
    avoiding = replace(A, avoided_devices=("sim0",))
    harness.submit(avoiding)
    assert [each["reason"] for each in explain(harness.state, avoiding, 1)["devices"]] == ["avoided"]
    harness.submit(B)
    assert describe_actions(harness.plan_and_apply()) == ["load b 2 on sim0 4G"], "others go on"
    harness.state.residency.slots["sim0"].is_proven = True
    assert describe_actions(harness.plan_and_apply()) == ["load a 1 on sim0 6G"]


def test_who_idles_there_and_is_not_pinned_can_make_room() -> None:
    harness = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G))
    harness.keep_alive_s["p"] = -1
    harness.add_idle(make_class("p", 20 * G))
    gang = harness.add_idle(make_class("g", 2 * G, gpus=2))
    harness.add_running(make_class("r", 2 * G))
    assert harness.state.residency.evictable_on(["sim0", "sim1"]) == [gang]


def test_where_no_other_takes_work_it_is_taken_all_the_same() -> None:
    harness = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G))
    harness.state.set_device_open("sim1", False)
    harness.submit(replace(A, avoided_devices=("sim0",)))
    assert describe_actions(harness.plan_and_apply()) == ["load a 1 on sim0 6G"]
    gang = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G))
    gang.submit(replace(make_class("g", 6 * G, gpus=2), avoided_devices=("sim0",)))
    assert describe_actions(gang.plan_and_apply()) == ["load g 1 on sim0+sim1 6G"]
