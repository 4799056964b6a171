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
    rig = PlannerHarness()
    rig.submit(A)
    return rig


def best_fit() -> PlannerHarness:
    rig = two(24 * G, 8 * G)
    rig.submit(A)
    return rig


def fills_a_device() -> PlannerHarness:
    rig = PlannerHarness()
    rig.submit(A, 5)
    return rig


def warm_before_cold() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_idle(A)
    rig.submit(A)
    return rig


def warm_passes_older_cold() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_idle(A)
    rig.submit(make_class("b", 20 * G))
    rig.submit(A)
    return rig


def evicts_the_least_recently_used() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_idle(A)
    rig.add_idle(B)
    rig.add_idle(C)
    rig.submit(make_class("d", 10 * G))
    return rig


def spares_those_who_do_not_help() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_idle(make_class("small", 1 * G))
    rig.add_idle(make_class("large", 16 * G))
    rig.submit(make_class("d", 20 * G))
    return rig


def evicts_where_least_must_go() -> PlannerHarness:
    rig = two()
    rig.add_idle(make_class("a", 20 * G))
    rig.add_idle(make_class("b", 10 * G))
    rig.submit(make_class("d", 16 * G))
    return rig


def evicts_nobody_in_vain() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_idle(A)
    rig.add_running(make_class("b", 12 * G))
    rig.submit(make_class("d", 20 * G))
    return rig


def never_evicts_the_pinned() -> PlannerHarness:
    rig = PlannerHarness()
    rig.keep_alive_s["a"] = -1
    rig.add_idle(A)
    rig.submit(make_class("d", 20 * G))
    return rig


def wakes_only_with_its_whole_grant() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_idle(make_class("a", 20 * G), used=4 * G)
    rig.add_running(make_class("b", 10 * G))
    rig.submit(make_class("a", 20 * G))
    return rig


def makes_room_to_wake() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_idle(make_class("a", 16 * G), used=4 * G)
    rig.add_idle(make_class("b", 10 * G))
    rig.submit(make_class("a", 16 * G))
    return rig


def replaces_one_with_too_small_a_grant() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_idle(make_class("a", 6 * G))
    rig.submit(make_class("a", 20 * G))
    return rig


def replaces_its_own_kind_as_a_last_resort() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_idle(make_class("a", 16 * G), used=2 * G)
    rig.add_running(make_class("b", 14 * G))
    rig.submit(make_class("a", 9 * G))
    return rig


def takes_the_higher_priority_first() -> PlannerHarness:
    rig = PlannerHarness()
    rig.submit(make_class("a", 20 * G))
    rig.submit(make_class("b", 20 * G, priority=60))
    return rig


def lets_the_small_pass_the_blocked() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_running(make_class("x", 10 * G))
    rig.submit(make_class("a", 20 * G))
    rig.submit(B)
    return rig


def unknown_takes_all_of_the_emptiest() -> PlannerHarness:
    rig = two()
    rig.add_running(make_class("x", 10 * G))
    rig.submit(make_class("a", None))
    return rig


def unknown_waits_for_a_quarter() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_running(make_class("x", 19 * G))
    rig.submit(make_class("a", None))
    return rig


def unknown_evicts_for_a_quarter() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_running(make_class("x", 15 * G))
    rig.add_idle(make_class("y", 5 * G))
    rig.submit(make_class("a", None))
    return rig


def nothing_starts_beside_the_unknown() -> PlannerHarness:
    rig = PlannerHarness(sim(0, 24 * G), CPU)
    rig.add_idle(make_class("x", 2 * G))
    rig.add_running(make_class("a", None))
    rig.submit(make_class("x", 2 * G))
    return rig


def without_a_grant_only_places_count() -> PlannerHarness:
    rig = PlannerHarness(CPU)
    rig.submit(make_class("f", 0, gpus=0), 3)
    return rig


def gpu_jobs_run_on_cpu_without_gpus() -> PlannerHarness:
    rig = PlannerHarness(CPU)
    rig.submit(A)
    return rig


def gpu_jobs_stay_off_the_cpu() -> PlannerHarness:
    rig = PlannerHarness(sim(0, 4 * G), CPU)
    rig.submit(A)
    return rig


def a_gang_takes_both() -> PlannerHarness:
    rig = two()
    rig.submit(make_class("a", 20 * G, gpus=2))
    return rig


def a_gang_takes_none_of_too_few() -> PlannerHarness:
    rig = two()
    rig.add_running(make_class("x", 10 * G))
    rig.submit(make_class("a", 20 * G, gpus=2))
    return rig


def a_gang_makes_room_on_both() -> PlannerHarness:
    rig = two()
    rig.add_idle(make_class("x", 10 * G))
    rig.add_idle(make_class("y", 16 * G))
    rig.submit(make_class("a", 20 * G, gpus=2))
    return rig


def a_gang_of_one_on_the_cpu() -> PlannerHarness:
    rig = PlannerHarness(CPU)
    rig.submit(make_class("a", 2 * G, gpus=4))
    return rig


def paused() -> PlannerHarness:
    rig = PlannerHarness()
    rig.state.backlog.pause_queue("default", True)
    rig.submit(A)
    return rig


def one_of_two_paused() -> PlannerHarness:
    rig = paused()
    rig.submit(make_class("b", queue="other"))
    return rig


def resumed() -> PlannerHarness:
    rig = paused()
    rig.state.backlog.pause_queue("default", False)
    return rig


def limited() -> PlannerHarness:
    rig = PlannerHarness()
    rig.state.limits.set_handler_limit("a", 1)
    rig.submit(A, 3)
    return rig


def unlimited_again() -> PlannerHarness:
    rig = limited()
    rig.state.limits.set_handler_limit("a", None)
    return rig


def limited_and_idle() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_idle(A)
    rig.add_idle(make_class("a", 7 * G))
    rig.state.limits.set_handler_limit("a", 1)
    rig.submit(A, 2)
    return rig


def closed() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_idle(A)
    rig.state.set_device_open("sim0", False)
    rig.submit(A)
    return rig


def closed_under_a_running_one() -> PlannerHarness:
    rig = PlannerHarness()
    rig.state.limits.set_stage_depth("a", "1", 4)
    rig.add_running(A)
    rig.state.set_device_open("sim0", False)
    rig.submit(A)
    return rig


def staged() -> PlannerHarness:
    rig = PlannerHarness()
    rig.state.limits.set_stage_depth("a", "1", 4)
    rig.add_running(A)
    rig.submit(A, 5)
    return rig


def staged_evenly() -> PlannerHarness:
    rig = PlannerHarness()
    rig.add_idle(A)
    rig.submit(A, 2)
    rig.plan_and_apply()
    rig.finish(1)
    rig.finish(2)
    rig.state.limits.set_stage_depth("a", "1", 16)
    rig.submit(A, 6)
    return rig


def staged_to_the_roomiest() -> PlannerHarness:
    rig = PlannerHarness(sim(0, 12 * G))
    rig.submit(A, 2)
    rig.plan_and_apply()
    rig.state.on_loaded(1, None, 0)
    rig.state.on_loaded(2, None, 0)
    rig.state.limits.set_stage_depth("a", "1", 2)
    rig.submit(A)
    rig.plan_and_apply()
    rig.submit(A, 2)
    return rig


def worn_out() -> PlannerHarness:
    rig = PlannerHarness(sim(0, 6 * G))
    rig.max_jobs = 1
    rig.add_idle(A)
    rig.submit(A)
    return rig


def few_jobs_left() -> PlannerHarness:
    rig = PlannerHarness(sim(0, 6 * G))
    rig.max_jobs = 3
    rig.add_idle(A)
    rig.state.limits.set_stage_depth("a", "1", 16)
    rig.submit(A, 5)
    return rig


def all_places_taken() -> PlannerHarness:
    rig = PlannerHarness(sim(0, 24 * G, max_executors=1))
    rig.add_running(A)
    rig.submit(B)
    return rig


def too_many_idle() -> PlannerHarness:
    rig = PlannerHarness(sim(0, 24 * G, max_executors=1))
    rig.add_idle(A, used=0)
    rig.add_idle(B, used=0)
    rig.submit(C)
    return rig


def newer_version() -> PlannerHarness:
    rig = PlannerHarness(sim(0, 6 * G))
    rig.add_idle(A)
    rig.submit(make_class("a", version="2"))
    return rig


def learned_peak() -> PlannerHarness:
    rig = PlannerHarness()
    rig.record_peaks("a", 4 * G)
    rig.submit(make_class("a", None))
    return rig


def learned_peak_of_the_whole_device() -> PlannerHarness:
    rig = PlannerHarness()
    rig.record_peaks("a", 24 * G)
    rig.add_idle(make_class("a", None))
    rig.submit(make_class("a", None))
    return rig


def foreign_use() -> PlannerHarness:
    rig = PlannerHarness(nvidia(0, "GPU-1", "card", 24 * G))
    rig.state.ledger.usage.record_reading("gpu0", 24 * G, 20 * G)
    rig.submit(A)
    return rig


def learned_peak_beside_a_small_device() -> PlannerHarness:
    rig = two(8 * G, 24 * G)
    rig.record_peaks("a", 20 * G)
    rig.submit(make_class("a", None))
    return rig


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
    (paused, [], ["paused"]),
    (one_of_two_paused, ["load b 2 on sim0 6G"], ["paused"]),
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
    (too_many_idle, ["evict 1"], ["waiting_for_memory"]),
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
    rig = PlannerHarness()
    rig.add_running(make_class("x", 4 * G))
    rig.add_idle(make_class("y", 16 * G))
    rig.submit(make_class("big", 18 * G))
    assert describe_actions(rig.plan_and_apply()) == ["evict 2"]
    rig.submit(make_class("small", 4 * G), 2)
    assert describe_actions(rig.plan_and_apply()) == []
    rig.remove_leaving()
    assert describe_actions(rig.plan_and_apply()) == ["load big 3 on sim0 18G"]


def test_who_made_room_gets_it_though_a_warm_one_would_take_it() -> None:
    rig = PlannerHarness()
    rig.add_idle(make_class("warm", 12 * G), used=1 * G)
    rig.keep_alive_s["y"] = 5
    rig.add_idle(make_class("y", 12 * G))
    rig.submit(make_class("big", 20 * G))
    assert describe_actions(rig.plan_and_apply()) == ["evict 2"]
    rig.submit(make_class("warm", 12 * G))
    assert describe_actions(rig.plan_and_apply()) == []
    rig.remove_leaving()
    assert describe_actions(rig.plan_and_apply()) == ["load big 3 on sim0 20G"]


def test_who_lingers_is_not_waited_for_where_others_can_make_room() -> None:
    rig = PlannerHarness()
    lingering = rig.add_running(make_class("x", 10 * G))
    rig.add_idle(make_class("y", 10 * G))
    rig.state.evict(lingering, finishes_first=True)
    rig.submit(make_class("big", 10 * G))
    assert describe_actions(rig.plan_and_apply()) == ["evict 2"]
    rig.submit(make_class("other", 10 * G))
    rig.finish(lingering)
    assert describe_actions(rig.plan_and_apply()) == [], "it has ended what it ran: its bytes are coming"
    rig.remove_leaving()
    assert describe_actions(rig.plan_and_apply()) == ["load big 3 on sim0 10G", "load other 4 on sim0 10G"]


def test_who_lingers_keeps_its_place_until_it_has_ended_what_it_runs() -> None:
    rig = PlannerHarness(sim(0, 24 * G, max_executors=1))
    lingering = rig.add_running(make_class("x", 1 * G))
    rig.state.evict(lingering, finishes_first=True)
    rig.submit(C)
    assert describe_actions(rig.plan_and_apply()) == []
    rig.finish(lingering)
    assert describe_actions(rig.plan_and_apply()) == ["load c 2 on sim0 6G"]


def test_nobody_is_sent_away_for_a_place_that_is_coming_free() -> None:
    rig = PlannerHarness(sim(0, 24 * G, max_executors=1))
    for name in "ab":
        rig.add_idle(make_class(name, 6 * G), used=0)
    rig.submit(C)
    assert describe_actions(rig.plan_and_apply()) == ["evict 1"]
    assert describe_actions(rig.plan_and_apply()) == []
    rig.remove_leaving()
    assert describe_actions(rig.plan_and_apply()) == ["load c 3 on sim0 6G"]


def test_overtaken_eight_times_a_job_gets_the_device_kept() -> None:
    rig = PlannerHarness()
    rig.add_running(make_class("x", 6 * G))
    (big,) = rig.submit(make_class("big", 20 * G))
    rig.submit(B, 20)
    for _ in range(30):
        rig.plan_and_apply()
        for executor in [each for each in rig.state.executors if each != 1]:
            rig.finish(executor)
    assert [n > big for n in rig.started] == [False] + [True] * 8
    assert rig.state.overtakes.counts == {big: 8}
    rig.finish(1)
    rig.plan_and_apply()
    rig.remove_leaving()
    assert describe_actions(rig.plan_and_apply())[0] == f"load big {big} on sim0 20G"
    assert rig.state.overtakes.kept_devices == {}


def test_a_kept_device_is_kept_from_equals_but_not_from_higher_ones() -> None:
    rig = PlannerHarness(bypass_limit=0)
    rig.add_running(make_class("x", 6 * G))
    rig.submit(make_class("big", 20 * G))
    rig.submit(B)
    assert describe_actions(rig.plan_and_apply()) == []
    rig.submit(make_class("high", 6 * G, priority=90))
    assert describe_actions(rig.plan_and_apply()) == ["load high 4 on sim0 6G"]


def test_lower_ones_pass_a_higher_one_only_so_often() -> None:
    rig = PlannerHarness(bypass_limit=2)
    rig.add_running(make_class("x", 6 * G))
    rig.submit(make_class("big", 20 * G, priority=90))
    rig.submit(make_class("b", 5 * G), 5)
    assert len(describe_actions(rig.plan_and_apply())) == 2
    assert describe_actions(rig.plan_and_apply()) == []


def test_one_that_needs_no_bytes_passes_a_job_that_waits_for_memory() -> None:
    rig = PlannerHarness(CPU, bypass_limit=0)
    rig.state.residency.set_max_executors("cpu", 4)
    rig.add_running(make_class("x", 10 * G))
    rig.submit(make_class("big", 14 * G))
    rig.submit(make_class("f", 0, gpus=0))
    assert describe_actions(rig.plan_and_apply()) == ["load f 3 on cpu 0G"]


def test_one_that_takes_the_place_that_another_waits_for_does_not_pass() -> None:
    rig = PlannerHarness(CPU, bypass_limit=0)
    rig.state.residency.set_max_executors("cpu", 3)
    rig.add_running(make_class("x", 10 * G))
    rig.add_running(make_class("y", 2 * G))
    rig.state.residency.set_max_executors("cpu", 2)
    rig.submit(make_class("big", 14 * G))
    rig.submit(make_class("f", 0, gpus=0))
    rig.finish(2)
    rig.state.limits.set_stage_depth("x", "1", 2)
    rig.submit(make_class("x", 10 * G))
    assert describe_actions(rig.plan_and_apply()) == ["load f 4 on cpu 0G"], (
        "it leaves a place, but x would go on"
    )


def test_who_waits_for_a_place_is_overtaken_only_so_often() -> None:
    rig = PlannerHarness(CPU, bypass_limit=1)
    rig.state.limits.set_stage_depth("x", "1", 2)
    rig.add_running(make_class("x", 0, gpus=0))
    rig.add_running(make_class("y", 0, gpus=0))
    (n,) = rig.submit(make_class("f", 0, gpus=0))
    rig.submit(make_class("x", 0, gpus=0), 2)
    assert describe_actions(rig.plan_and_apply()) == ["start 1: 4"]
    assert rig.state.overtakes.counts == {n: 1}
    rig.finish(1)
    assert describe_actions(rig.plan_and_apply()) == [f"load f {n} on cpu 0G"]


def test_nobody_overtakes_a_paused_job() -> None:
    rig = PlannerHarness(bypass_limit=1)
    rig.state.backlog.pause_queue("other", True)
    rig.submit(make_class("a", 20 * G, queue="other"))
    rig.submit(B, 3)
    assert len(describe_actions(rig.plan_and_apply())) == 3
    assert rig.state.overtakes.counts == {}


def test_a_job_kept_from_by_a_pinned_executor_keeps_no_device() -> None:
    rig = PlannerHarness(bypass_limit=1)
    rig.keep_alive_s["x"] = -1
    rig.add_idle(make_class("x", 6 * G))
    rig.submit(make_class("big", 20 * G))
    rig.submit(B, 2)
    assert len(describe_actions(rig.plan_and_apply())) == 2


def test_where_pinned_executors_take_all_places_nobody_waits_for_one() -> None:
    rig = PlannerHarness(sim(0, 24 * G, 1), bypass_limit=0)
    rig.keep_alive_s |= {"x": -1, "y": -1}
    rig.add_idle(make_class("x", 2 * G))
    rig.add_idle(make_class("y", 2 * G))
    rig.submit(make_class("big", 20 * G))
    rig.submit(make_class("x", 2 * G))
    assert describe_actions(rig.plan_and_apply()) == ["start 1: 4"]


def test_nothing_is_staged_behind_an_attempt_that_takes_long() -> None:
    rig = PlannerHarness(sim(0, 12 * G, 1))
    rig.state.limits.set_stage_depth("b", "1", 16)
    executor = rig.add_running(B)
    rig.state.mark_long_running(executor, 1)
    assert rig.submit(B, 2) == [2, 3]
    assert describe_actions(rig.plan_and_apply()) == []
    # The end of another one, cancelled before it started, tells nothing of the long one.
    assert not rig.state.on_attempt_ended(executor, B, 2, rig.now)
    assert describe_actions(rig.plan_and_apply()) == []
    rig.finish(executor)
    assert describe_actions(rig.plan_and_apply()) == ["start 1: 2,3"]


def test_a_staged_batch_stops_where_another_was_overtaken_enough() -> None:
    rig = PlannerHarness(sim(0, 12 * G), bypass_limit=3)
    rig.state.limits.set_stage_depth("b", "1", 16)
    rig.add_running(B)
    rig.submit(B, 2)
    rig.submit(make_class("big", 12 * G))
    rig.submit(B, 10)
    assert describe_actions(rig.plan_and_apply()) == ["start 1: 2,3,5,6,7"]


def test_the_overtaken_goes_first_even_when_others_are_warm() -> None:
    rig = PlannerHarness(sim(0, 12 * G), bypass_limit=2)
    rig.add_idle(make_class("b", 12 * G))
    (big,) = rig.submit(make_class("big", 12 * G))
    for _ in range(2):
        rig.submit(make_class("b", 12 * G))
        assert describe_actions(rig.plan_and_apply())[0].startswith("start 1")
        rig.finish(1)
    rig.submit(make_class("b", 12 * G))
    assert describe_actions(rig.plan_and_apply()) == ["evict 1"]
    rig.remove_leaving()
    assert describe_actions(rig.plan_and_apply()) == [f"load big {big} on sim0 12G"]


def test_when_the_kept_device_closes_another_is_kept() -> None:
    rig = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G), bypass_limit=1)
    rig.add_running(make_class("x", 6 * G))
    rig.add_running(make_class("y", 19 * G))
    (big,) = rig.submit(make_class("big", 20 * G))
    rig.submit(B)
    rig.plan_and_apply()
    assert rig.state.overtakes.kept_devices == {big: ("sim0",)}
    rig.state.set_device_open("sim0", False)
    rig.submit(make_class("c", 5 * G))
    assert describe_actions(rig.plan_and_apply()) == []
    rig.submit(make_class("d", 2 * G))
    assert describe_actions(rig.plan_and_apply()) == ["load d 6 on sim1 2G"], "it fits in beside the other"
    rig.finish(2)
    rig.plan_and_apply()
    rig.remove_leaving()
    assert describe_actions(rig.plan_and_apply())[0] == f"load big {big} on sim1 20G"


def test_after_its_first_attempt_an_unknown_need_is_the_measured_one() -> None:
    rig = PlannerHarness()
    rig.add_running(make_class("a", None))
    rig.submit(B)
    assert describe_actions(rig.plan_and_apply()) == []
    rig.record_peaks("a", 5 * G)
    assert describe_actions(rig.plan_and_apply()) == ["load b 2 on sim0 6G"]
    assert rig.state.ledger.reserved_bytes("sim0") == 6 * G + 5 * G * 3 // 2 + 64 * MIB


def test_after_running_out_of_memory_a_job_is_alone_again() -> None:
    rig = PlannerHarness()
    rig.record_peaks("a", 4 * G)
    executor = rig.add_idle(make_class("a", None))
    rig.state.estimator.record_oom(make_class("a", None), 4 * G)
    rig.submit(make_class("a", None))
    rig.state.evict(executor)
    rig.remove_leaving()
    assert describe_actions(rig.plan_and_apply()) == ["load a 2 on sim0 24G alone"]


def test_an_unmeasured_executor_runs_alone_again() -> None:
    rig = PlannerHarness()
    rig.add_idle(make_class("a", None), used=2 * G)
    rig.submit(make_class("a", None))
    rig.submit(B)
    assert describe_actions(rig.plan_and_apply()) == ["start 1: 2"]
    assert describe_actions(rig.plan_and_apply()) == []
    rig.finish(1)
    assert describe_actions(rig.plan_and_apply()) == ["load b 3 on sim0 6G"]


def test_a_job_may_go_elsewhere_than_to_the_device_kept_for_it() -> None:
    rig = two()
    rig.state.overtakes.limit = 1
    rig.add_running(make_class("x", 6 * G))
    rig.add_running(make_class("y", 20 * G))
    (big,) = rig.submit(make_class("big", 20 * G))
    rig.submit(B)
    rig.plan_and_apply()
    rig.submit(make_class("c", 2 * G))
    assert describe_actions(rig.plan_and_apply()) == ["load c 5 on sim1 2G"]
    rig.finish(2)
    rig.finish(4)
    rig.plan_and_apply()
    rig.remove_leaving()
    assert describe_actions(rig.plan_and_apply()) == [f"load big {big} on sim1 20G"]


def test_who_waits_for_a_warm_executor_does_not_wait_for_one_that_never_ends() -> None:
    rig = PlannerHarness()
    rig.state.record_run(A, None, 2.0)
    rig.state.estimator.record_load(A.key, None, 10.0)
    rig.add_running(A)
    rig.submit(A)
    made = rig.plan_and_apply()
    # It should be free in a second, and a new one would take ten.
    assert (describe_actions(made), made.replan_at) == ([], rig.now + 1.0)
    rig.now += 4.0
    made = rig.plan_and_apply()
    assert (describe_actions(made), made.replan_at) == ([], rig.now + 5.0)
    rig.now += 12.0
    made = rig.plan_and_apply()
    assert describe_actions(made) == ["load a 2 on sim0 6G"] and math.isinf(made.replan_at)
