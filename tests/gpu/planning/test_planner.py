from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from gpu.devices.device import cpu, nvidia, sim
from gpu.estimates.observations import MIB
from gpu.planning.planner import plan
from tests.gpu.planner_harness import G, PlannerHarness, describe_actions, make_class

A, B, C = (make_class(name) for name in "abc")
CPU = cpu("m", "cpu", 16 * G, 2)


def two(first: int = 24 * G, second: int = 24 * G) -> PlannerHarness:
    return PlannerHarness(sim(0, first), sim(1, second))


def cold_start() -> PlannerHarness:
    harness = PlannerHarness()
    harness.submit(A)
    return harness


def best_fit() -> PlannerHarness:
    harness = two(24 * G, 8 * G)
    harness.submit(A)
    return harness


def fills_a_device() -> PlannerHarness:
    harness = PlannerHarness()
    harness.submit(A, 5)
    return harness


def warm_before_cold() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_idle(A)
    harness.submit(A)
    return harness


def warm_passes_older_cold() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_idle(A)
    harness.submit(make_class("b", 20 * G))
    harness.submit(A)
    return harness


def evicts_the_least_recently_used() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_idle(A)
    harness.add_idle(B)
    harness.add_idle(C)
    harness.submit(make_class("d", 10 * G))
    return harness


def spares_those_who_do_not_help() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_idle(make_class("small", 1 * G))
    harness.add_idle(make_class("large", 16 * G))
    harness.submit(make_class("d", 20 * G))
    return harness


def evicts_where_least_must_go() -> PlannerHarness:
    harness = two()
    harness.add_idle(make_class("a", 20 * G))
    harness.add_idle(make_class("b", 10 * G))
    harness.submit(make_class("d", 16 * G))
    return harness


def evicts_nobody_in_vain() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_idle(A)
    harness.add_running(make_class("b", 12 * G))
    harness.submit(make_class("d", 20 * G))
    return harness


def never_evicts_the_pinned() -> PlannerHarness:
    harness = PlannerHarness()
    harness.keep_alive_s["a"] = -1
    harness.add_idle(A)
    harness.submit(make_class("d", 20 * G))
    return harness


def wakes_only_with_its_whole_grant() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_idle(make_class("a", 20 * G), used=4 * G)
    harness.add_running(make_class("b", 10 * G))
    harness.submit(make_class("a", 20 * G))
    return harness


def makes_room_to_wake() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_idle(make_class("a", 16 * G), used=4 * G)
    harness.add_idle(make_class("b", 10 * G))
    harness.submit(make_class("a", 16 * G))
    return harness


def replaces_one_with_too_small_a_grant() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_idle(make_class("a", 6 * G))
    harness.submit(make_class("a", 20 * G))
    return harness


def replaces_its_own_kind_as_a_last_resort() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_idle(make_class("a", 16 * G), used=2 * G)
    harness.add_running(make_class("b", 14 * G))
    harness.submit(make_class("a", 9 * G))
    return harness


def takes_the_higher_priority_first() -> PlannerHarness:
    harness = PlannerHarness()
    harness.submit(make_class("a", 20 * G))
    harness.submit(make_class("b", 20 * G, priority=60))
    return harness


def lets_the_small_pass_the_blocked() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_running(make_class("x", 10 * G))
    harness.submit(make_class("a", 20 * G))
    harness.submit(B)
    return harness


def unknown_takes_all_of_the_emptiest() -> PlannerHarness:
    harness = two()
    harness.add_running(make_class("x", 10 * G))
    harness.submit(make_class("a", None))
    return harness


def unknown_waits_for_a_quarter() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_running(make_class("x", 19 * G))
    harness.submit(make_class("a", None))
    return harness


def unknown_evicts_for_a_quarter() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_running(make_class("x", 15 * G))
    harness.add_idle(make_class("y", 5 * G))
    harness.submit(make_class("a", None))
    return harness


def nothing_starts_beside_the_unknown() -> PlannerHarness:
    harness = PlannerHarness(sim(0, 24 * G), CPU)
    harness.add_idle(make_class("x", 2 * G))
    harness.add_running(make_class("a", None))
    harness.submit(make_class("x", 2 * G))
    return harness


def without_a_grant_only_places_count() -> PlannerHarness:
    harness = PlannerHarness(CPU)
    harness.submit(make_class("f", 0, gpus=0), 3)
    return harness


def gpu_jobs_run_on_cpu_without_gpus() -> PlannerHarness:
    harness = PlannerHarness(CPU)
    harness.submit(A)
    return harness


def gpu_jobs_stay_off_the_cpu() -> PlannerHarness:
    harness = PlannerHarness(sim(0, 4 * G), CPU)
    harness.submit(A)
    return harness


def a_gang_takes_both() -> PlannerHarness:
    harness = two()
    harness.submit(make_class("a", 20 * G, gpus=2))
    return harness


def a_gang_takes_none_of_too_few() -> PlannerHarness:
    harness = two()
    harness.add_running(make_class("x", 10 * G))
    harness.submit(make_class("a", 20 * G, gpus=2))
    return harness


def a_gang_makes_room_on_both() -> PlannerHarness:
    harness = two()
    harness.add_idle(make_class("x", 10 * G))
    harness.add_idle(make_class("y", 16 * G))
    harness.submit(make_class("a", 20 * G, gpus=2))
    return harness


def a_gang_of_one_on_the_cpu() -> PlannerHarness:
    harness = PlannerHarness(CPU)
    harness.submit(make_class("a", 2 * G, gpus=4))
    return harness


def paused() -> PlannerHarness:
    harness = PlannerHarness()
    harness.state.backlog.pause_queue("default", True)
    harness.submit(A)
    return harness


def one_of_two_paused() -> PlannerHarness:
    harness = paused()
    harness.submit(make_class("b", queue="other"))
    return harness


def resumed() -> PlannerHarness:
    harness = paused()
    harness.state.backlog.pause_queue("default", False)
    return harness


def limited() -> PlannerHarness:
    harness = PlannerHarness()
    harness.state.limits.set_handler_limit("a", 1)
    harness.submit(A, 3)
    return harness


def unlimited_again() -> PlannerHarness:
    harness = limited()
    harness.state.limits.set_handler_limit("a", None)
    return harness


def limited_and_idle() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_idle(A)
    harness.add_idle(make_class("a", 7 * G))
    harness.state.limits.set_handler_limit("a", 1)
    harness.submit(A, 2)
    return harness


def closed() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_idle(A)
    harness.state.set_device_open("sim0", False)
    harness.submit(A)
    return harness


def closed_under_a_running_one() -> PlannerHarness:
    harness = PlannerHarness()
    harness.state.limits.set_stage_depth("a", "1", 4)
    harness.add_running(A)
    harness.state.set_device_open("sim0", False)
    harness.submit(A)
    return harness


def staged() -> PlannerHarness:
    harness = PlannerHarness()
    harness.state.limits.set_stage_depth("a", "1", 4)
    harness.add_running(A)
    harness.submit(A, 5)
    return harness


def staged_evenly() -> PlannerHarness:
    harness = PlannerHarness()
    harness.add_idle(A)
    harness.submit(A, 2)
    harness.plan_and_apply()
    harness.finish(1)
    harness.finish(2)
    harness.state.limits.set_stage_depth("a", "1", 16)
    harness.submit(A, 6)
    return harness


def staged_to_the_roomiest() -> PlannerHarness:
    harness = PlannerHarness(sim(0, 12 * G))
    harness.submit(A, 2)
    harness.plan_and_apply()
    harness.state.on_loaded(1, None, 0)
    harness.state.on_loaded(2, None, 0)
    harness.state.limits.set_stage_depth("a", "1", 2)
    harness.submit(A)
    harness.plan_and_apply()
    harness.submit(A, 2)
    return harness


def worn_out() -> PlannerHarness:
    harness = PlannerHarness(sim(0, 6 * G))
    harness.max_jobs = 1
    harness.add_idle(A)
    harness.submit(A)
    return harness


def few_jobs_left() -> PlannerHarness:
    harness = PlannerHarness(sim(0, 6 * G))
    harness.max_jobs = 3
    harness.add_idle(A)
    harness.state.limits.set_stage_depth("a", "1", 16)
    harness.submit(A, 5)
    return harness


def all_places_taken() -> PlannerHarness:
    harness = PlannerHarness(sim(0, 24 * G, max_executors=1))
    harness.add_running(A)
    harness.submit(B)
    return harness


def too_many_idle() -> PlannerHarness:
    harness = PlannerHarness(sim(0, 24 * G, max_executors=1, max_resident=2))
    harness.add_idle(A, used=0)
    harness.add_idle(B, used=0)
    harness.submit(C)
    return harness


def newer_version() -> PlannerHarness:
    harness = PlannerHarness(sim(0, 6 * G))
    harness.add_idle(A)
    harness.submit(make_class("a", version="2"))
    return harness


def learned_peak() -> PlannerHarness:
    harness = PlannerHarness()
    harness.record_peaks("a", 4 * G)
    harness.submit(make_class("a", None))
    return harness


def learned_peak_of_the_whole_device() -> PlannerHarness:
    harness = PlannerHarness()
    harness.record_peaks("a", 24 * G)
    harness.add_idle(make_class("a", None))
    harness.submit(make_class("a", None))
    return harness


def foreign_use() -> PlannerHarness:
    harness = PlannerHarness(nvidia(0, "GPU-1", "card", 24 * G))
    harness.state.ledger.usage.record_reading("gpu0", 24 * G, 20 * G)
    harness.submit(A)
    return harness


def learned_peak_beside_a_small_device() -> PlannerHarness:
    harness = two(8 * G, 24 * G)
    harness.record_peaks("a", 20 * G)
    harness.submit(make_class("a", None))
    return harness


TABLE: list[tuple[Callable[[], PlannerHarness], list[str], list[str]]] = [
    (cold_start, ["load a 1 on sim0 6G"], []),
    (best_fit, ["load a 1 on sim1 6G"], []),
    (fills_a_device, [f"load a {n} on sim0 6G" for n in (1, 2, 3, 4)], ["waiting_for_memory"]),
    (warm_before_cold, ["start 1: 2"], []),
    (warm_passes_older_cold, ["start 1: 3"], ["waiting_for_memory"]),
    (evicts_the_least_recently_used, ["evict 1"], ["waiting_for_memory"]),
    (spares_those_who_do_not_help, ["evict 2"], ["waiting_for_memory"]),
    (evicts_where_least_must_go, ["evict 2"], ["waiting_for_memory"]),
    (evicts_nobody_in_vain, [], ["waiting_for_memory"]),
    (never_evicts_the_pinned, [], ["waiting_for_memory"]),
    (wakes_only_with_its_whole_grant, [], ["waiting_for_memory"]),
    (makes_room_to_wake, ["evict 2"], ["waiting_for_memory"]),
    (replaces_one_with_too_small_a_grant, ["evict 1"], ["waiting_for_memory"]),
    (replaces_its_own_kind_as_a_last_resort, ["evict 1"], ["waiting_for_memory"]),
    (takes_the_higher_priority_first, ["load b 2 on sim0 20G"], ["waiting_for_memory"]),
    (lets_the_small_pass_the_blocked, ["load b 3 on sim0 6G"], ["waiting_for_memory"]),
    (unknown_takes_all_of_the_emptiest, ["load a 2 on sim1 24G alone"], []),
    (unknown_waits_for_a_quarter, [], ["waiting_for_memory"]),
    (unknown_evicts_for_a_quarter, ["evict 2"], ["waiting_for_memory"]),
    (nothing_starts_beside_the_unknown, [], ["waiting_for_memory"]),
    (without_a_grant_only_places_count, ["load f 1 on cpu 0G", "load f 2 on cpu 0G"], ["waiting_for_device"]),
    (gpu_jobs_run_on_cpu_without_gpus, ["load a 1 on cpu 6G"], []),
    (gpu_jobs_stay_off_the_cpu, [], ["waiting_for_device"]),
    (a_gang_takes_both, ["load a 1 on sim0+sim1 20G"], []),
    (a_gang_takes_none_of_too_few, [], ["waiting_for_memory"]),
    (a_gang_makes_room_on_both, ["evict 1", "evict 2"], ["waiting_for_memory"]),
    (a_gang_of_one_on_the_cpu, ["load a 1 on cpu 2G"], []),
    (paused, [], []),
    (one_of_two_paused, ["load b 2 on sim0 6G"], []),
    (resumed, ["load a 1 on sim0 6G"], []),
    (limited, ["load a 1 on sim0 6G"], ["concurrency_limit"]),
    (unlimited_again, [f"load a {n} on sim0 6G" for n in (1, 2, 3)], []),
    (limited_and_idle, ["start 2: 3"], ["concurrency_limit"]),
    (closed, [], ["waiting_for_device"]),
    (closed_under_a_running_one, [], ["waiting_for_device"]),
    (staged, ["start 1: 2,3,4", "load a 5 on sim0 6G", "load a 6 on sim0 6G"], []),
    (staged_evenly, ["start 2: 4,5,6", "start 1: 7,8,9"], []),
    (staged_to_the_roomiest, ["start 2: 4"], ["waiting_for_memory"]),
    (worn_out, ["evict 1"], ["waiting_for_memory"]),
    (few_jobs_left, ["start 1: 2,3"], ["waiting_for_memory"]),
    (all_places_taken, [], ["waiting_for_device"]),
    (too_many_idle, ["evict 1"], ["waiting_for_device"]),
    (newer_version, ["evict 1"], ["waiting_for_memory"]),
    (learned_peak, ["load a 1 on sim0 6.0625G"], []),
    (learned_peak_of_the_whole_device, ["start 1: 2"], []),
    (learned_peak_beside_a_small_device, ["load a 1 on sim1 24G"], []),
    (foreign_use, [], ["waiting_for_memory"]),
]


@pytest.mark.parametrize(
    ("build", "actions", "reasons"), TABLE, ids=lambda value: getattr(value, "__name__", "")
)
def test_plan_of_a_situation(
    build: Callable[[], PlannerHarness], actions: list[str], reasons: list[str]
) -> None:
    made = plan(build().state, 100.0)
    assert describe_actions(made) == actions
    assert list(made.reasons.values()) == reasons


def test_who_made_room_gets_it_though_a_small_one_would_fit_first() -> None:
    harness = PlannerHarness()
    harness.add_running(make_class("x", 4 * G))
    harness.add_idle(make_class("y", 16 * G))
    harness.submit(make_class("big", 18 * G))
    assert describe_actions(harness.plan_and_apply()) == ["evict 2"]
    harness.submit(make_class("small", 4 * G), 2)
    assert describe_actions(harness.plan_and_apply()) == []
    harness.remove_leaving()
    assert describe_actions(harness.plan_and_apply()) == ["load big 3 on sim0 18G"]


def test_who_made_room_gets_it_though_a_warm_one_would_take_it() -> None:
    harness = PlannerHarness()
    harness.add_idle(make_class("warm", 12 * G), used=1 * G)
    harness.keep_alive_s["y"] = 5
    harness.add_idle(make_class("y", 12 * G))
    harness.submit(make_class("big", 20 * G))
    assert describe_actions(harness.plan_and_apply()) == ["evict 2"]
    harness.submit(make_class("warm", 12 * G))
    assert describe_actions(harness.plan_and_apply()) == []
    harness.remove_leaving()
    assert describe_actions(harness.plan_and_apply()) == ["load big 3 on sim0 20G"]


def test_who_lingers_is_not_waited_for_where_others_can_make_room() -> None:
    harness = PlannerHarness()
    lingering = harness.add_running(make_class("x", 10 * G))
    harness.add_idle(make_class("y", 10 * G))
    harness.state.evict(lingering, finishes_first=True)
    harness.submit(make_class("big", 10 * G))
    assert describe_actions(harness.plan_and_apply()) == ["evict 2"]
    harness.submit(make_class("other", 10 * G))
    harness.finish(lingering)
    assert describe_actions(harness.plan_and_apply()) == [], "it has ended what it ran: its bytes are coming"
    harness.remove_leaving()
    assert describe_actions(harness.plan_and_apply()) == [
        "load big 3 on sim0 10G",
        "load other 4 on sim0 10G",
    ]


def test_who_lingers_keeps_its_place_until_it_has_ended_what_it_runs() -> None:
    harness = PlannerHarness(sim(0, 24 * G, max_executors=1))
    lingering = harness.add_running(make_class("x", 1 * G))
    harness.state.evict(lingering, finishes_first=True)
    harness.submit(C)
    assert describe_actions(harness.plan_and_apply()) == []
    harness.finish(lingering)
    assert describe_actions(harness.plan_and_apply()) == ["load c 2 on sim0 6G"]


def test_nobody_is_sent_away_for_a_place_that_is_coming_free() -> None:
    harness = PlannerHarness(sim(0, 24 * G, max_executors=1, max_resident=2))
    for name in "ab":
        harness.add_idle(make_class(name, 6 * G), used=0)
    harness.submit(C)
    assert describe_actions(harness.plan_and_apply()) == ["evict 1"]
    assert describe_actions(harness.plan_and_apply()) == []
    harness.remove_leaving()
    assert describe_actions(harness.plan_and_apply()) == ["load c 3 on sim0 6G"]


def test_overtaken_eight_times_a_job_gets_the_device_kept() -> None:
    harness = PlannerHarness()
    harness.add_running(make_class("x", 6 * G))
    (big,) = harness.submit(make_class("big", 20 * G))
    harness.submit(B, 20)
    for _ in range(30):
        harness.plan_and_apply()
        for executor in [each for each in harness.state.executors if each != 1]:
            harness.finish(executor)
    assert [job_number > big for job_number in harness.started] == [False] + [True] * 8
    assert harness.state.overtakes.counts == {big: 8}
    harness.finish(1)
    harness.plan_and_apply()
    harness.remove_leaving()
    assert describe_actions(harness.plan_and_apply())[0] == f"load big {big} on sim0 20G"
    assert harness.state.overtakes.kept_devices == {}


def test_a_kept_device_is_kept_from_equals_but_not_from_higher_ones() -> None:
    harness = PlannerHarness(bypass_limit=0)
    harness.add_running(make_class("x", 6 * G))
    harness.submit(make_class("big", 20 * G))
    harness.submit(B)
    assert describe_actions(harness.plan_and_apply()) == []
    harness.submit(make_class("high", 6 * G, priority=90))
    assert describe_actions(harness.plan_and_apply()) == ["load high 4 on sim0 6G"]


def test_lower_ones_pass_a_higher_one_only_so_often() -> None:
    harness = PlannerHarness(bypass_limit=2)
    harness.add_running(make_class("x", 6 * G))
    harness.submit(make_class("big", 20 * G, priority=90))
    harness.submit(make_class("b", 5 * G), 5)
    assert len(describe_actions(harness.plan_and_apply())) == 2
    assert describe_actions(harness.plan_and_apply()) == []


def test_one_that_needs_no_bytes_passes_a_job_that_waits_for_memory() -> None:
    harness = PlannerHarness(CPU, bypass_limit=0)
    harness.state.residency.set_max_executors("cpu", 4)
    harness.add_running(make_class("x", 10 * G))
    harness.submit(make_class("big", 14 * G))
    harness.submit(make_class("f", 0, gpus=0))
    assert describe_actions(harness.plan_and_apply()) == ["load f 3 on cpu 0G"]


def test_one_that_takes_the_place_that_another_waits_for_does_not_pass() -> None:
    harness = PlannerHarness(CPU, bypass_limit=0)
    harness.state.residency.set_max_executors("cpu", 3)
    harness.add_running(make_class("x", 10 * G))
    harness.add_running(make_class("y", 2 * G))
    harness.state.residency.set_max_executors("cpu", 2)
    harness.submit(make_class("big", 14 * G))
    harness.submit(make_class("f", 0, gpus=0))
    harness.finish(2)
    harness.state.limits.set_stage_depth("x", "1", 2)
    harness.submit(make_class("x", 10 * G))
    assert describe_actions(harness.plan_and_apply()) == ["load f 4 on cpu 0G"], (
        "it leaves a place, but x would go on"
    )


def test_who_waits_for_a_place_is_overtaken_only_so_often() -> None:
    harness = PlannerHarness(CPU, bypass_limit=1)
    harness.state.limits.set_stage_depth("x", "1", 2)
    harness.add_running(make_class("x", 0, gpus=0))
    harness.add_running(make_class("y", 0, gpus=0))
    (job_number,) = harness.submit(make_class("f", 0, gpus=0))
    harness.submit(make_class("x", 0, gpus=0), 2)
    assert describe_actions(harness.plan_and_apply()) == ["start 1: 4"]
    assert harness.state.overtakes.counts == {job_number: 1}
    harness.finish(1)
    assert describe_actions(harness.plan_and_apply()) == [f"load f {job_number} on cpu 0G"]


def test_nobody_overtakes_a_paused_job() -> None:
    harness = PlannerHarness(bypass_limit=1)
    harness.state.backlog.pause_queue("other", True)
    harness.submit(make_class("a", 20 * G, queue="other"))
    harness.submit(B, 3)
    assert len(describe_actions(harness.plan_and_apply())) == 3
    assert harness.state.overtakes.counts == {}


def test_a_job_kept_from_by_a_pinned_executor_keeps_no_device() -> None:
    harness = PlannerHarness(bypass_limit=1)
    harness.keep_alive_s["x"] = -1
    harness.add_idle(make_class("x", 6 * G))
    harness.submit(make_class("big", 20 * G))
    harness.submit(B, 2)
    assert len(describe_actions(harness.plan_and_apply())) == 2


def test_the_place_that_is_never_pinned_is_what_a_job_waits_for() -> None:
    harness = PlannerHarness(sim(0, 24 * G, 1, max_resident=2), bypass_limit=0)
    harness.keep_alive_s |= {"x": -1, "y": -1}
    harness.add_idle(make_class("x", 2 * G))
    harness.add_idle(make_class("y", 2 * G))
    harness.submit(make_class("big", 20 * G))
    harness.submit(make_class("x", 2 * G))
    assert describe_actions(harness.plan_and_apply()) == ["evict 2"]
    harness.remove_leaving()
    assert describe_actions(harness.plan_and_apply()) == ["load big 3 on sim0 20G"]


def test_nothing_is_staged_behind_an_attempt_that_takes_long() -> None:
    harness = PlannerHarness(sim(0, 12 * G, 1))
    harness.state.limits.set_stage_depth("b", "1", 16)
    executor = harness.add_running(B)
    harness.state.mark_long_running(executor, 1)
    assert harness.submit(B, 2) == [2, 3]
    assert describe_actions(harness.plan_and_apply()) == []
    # The end of another one, cancelled before it started, tells nothing of the long one.
    assert not harness.state.on_attempt_ended(executor, B, 2, harness.now)
    assert describe_actions(harness.plan_and_apply()) == []
    harness.finish(executor)
    assert describe_actions(harness.plan_and_apply()) == ["start 1: 2,3"]


def test_a_staged_batch_stops_where_another_was_overtaken_enough() -> None:
    harness = PlannerHarness(sim(0, 12 * G), bypass_limit=3)
    harness.state.limits.set_stage_depth("b", "1", 16)
    harness.add_running(B)
    harness.submit(B, 2)
    harness.submit(make_class("big", 12 * G))
    harness.submit(B, 10)
    assert describe_actions(harness.plan_and_apply()) == ["start 1: 2,3,5,6,7"]


def test_the_overtaken_goes_first_even_when_others_are_warm() -> None:
    harness = PlannerHarness(sim(0, 12 * G), bypass_limit=2)
    harness.add_idle(make_class("b", 12 * G))
    (big,) = harness.submit(make_class("big", 12 * G))
    for _ in range(2):
        harness.submit(make_class("b", 12 * G))
        assert describe_actions(harness.plan_and_apply())[0].startswith("start 1")
        harness.finish(1)
    harness.submit(make_class("b", 12 * G))
    assert describe_actions(harness.plan_and_apply()) == ["evict 1"]
    harness.remove_leaving()
    assert describe_actions(harness.plan_and_apply()) == [f"load big {big} on sim0 12G"]


def test_when_the_kept_device_closes_another_is_kept() -> None:
    harness = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G), bypass_limit=1)
    harness.add_running(make_class("x", 6 * G))
    harness.add_running(make_class("y", 19 * G))
    (big,) = harness.submit(make_class("big", 20 * G))
    harness.submit(B)
    harness.plan_and_apply()
    assert harness.state.overtakes.kept_devices == {big: ("sim0",)}
    harness.state.set_device_open("sim0", False)
    harness.submit(make_class("c", 5 * G))
    assert describe_actions(harness.plan_and_apply()) == []
    harness.submit(make_class("d", 2 * G))
    assert describe_actions(harness.plan_and_apply()) == ["load d 6 on sim1 2G"], (
        "it fits in beside the other"
    )
    harness.finish(2)
    harness.plan_and_apply()
    harness.remove_leaving()
    assert describe_actions(harness.plan_and_apply())[0] == f"load big {big} on sim1 20G"


def test_after_its_first_attempt_an_unknown_need_is_the_measured_one() -> None:
    harness = PlannerHarness()
    harness.add_running(make_class("a", None))
    harness.submit(B)
    assert describe_actions(harness.plan_and_apply()) == []
    harness.record_peaks("a", 5 * G)
    assert describe_actions(harness.plan_and_apply()) == ["load b 2 on sim0 6G"]
    assert harness.state.ledger.reserved_bytes("sim0") == 6 * G + 5 * G * 3 // 2 + 64 * MIB


def test_after_running_out_of_memory_a_job_is_alone_again() -> None:
    harness = PlannerHarness()
    harness.record_peaks("a", 4 * G)
    executor = harness.add_idle(make_class("a", None))
    harness.state.estimator.record_oom(make_class("a", None), 4 * G)
    harness.submit(make_class("a", None))
    harness.state.evict(executor)
    harness.remove_leaving()
    assert describe_actions(harness.plan_and_apply()) == ["load a 2 on sim0 24G alone"]


def test_an_unmeasured_executor_runs_alone_again() -> None:
    harness = PlannerHarness()
    harness.add_idle(make_class("a", None), used=2 * G)
    harness.submit(make_class("a", None))
    harness.submit(B)
    assert describe_actions(harness.plan_and_apply()) == ["start 1: 2"]
    assert describe_actions(harness.plan_and_apply()) == []
    harness.finish(1)
    assert describe_actions(harness.plan_and_apply()) == ["load b 3 on sim0 6G"]


def test_a_job_may_go_elsewhere_than_to_the_device_kept_for_it() -> None:
    harness = two()
    harness.state.overtakes.limit = 1
    harness.add_running(make_class("x", 6 * G))
    harness.add_running(make_class("y", 20 * G))
    (big,) = harness.submit(make_class("big", 20 * G))
    harness.submit(B)
    harness.plan_and_apply()
    harness.submit(make_class("c", 2 * G))
    assert describe_actions(harness.plan_and_apply()) == ["load c 5 on sim1 2G"]
    harness.finish(2)
    harness.finish(4)
    harness.plan_and_apply()
    harness.remove_leaving()
    assert describe_actions(harness.plan_and_apply()) == [f"load big {big} on sim1 20G"]


def test_who_waits_for_a_warm_executor_does_not_wait_for_one_that_never_ends() -> None:
    harness = PlannerHarness()
    harness.state.record_run(A, None, 2.0)
    harness.state.estimator.record_load(A.key, None, 10.0)
    harness.add_running(A)
    harness.submit(A)
    made = harness.plan_and_apply()
    # It should be free in a second, and a new one would take ten.
    assert (describe_actions(made), made.replan_at) == ([], harness.now + 1.0)
    harness.now += 4.0
    made = harness.plan_and_apply()
    assert (describe_actions(made), made.replan_at) == ([], harness.now + 5.0)
    harness.now += 12.0
    made = harness.plan_and_apply()
    assert describe_actions(made) == ["load a 2 on sim0 6G"] and math.isinf(made.replan_at)
