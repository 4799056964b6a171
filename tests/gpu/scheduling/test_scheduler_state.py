from __future__ import annotations

import pytest

from gpu.devices.device import cpu, nvidia, sim
from gpu.estimates.estimator import Estimator
from gpu.estimates.observations import MIB
from gpu.planning.explain import explain
from gpu.planning.planner import plan
from gpu.scheduling.scheduler_state import SchedulerState
from tests.gpu.planner_harness import G, PlannerHarness, describe_actions, make_class

A, B = make_class("a"), make_class("b")


def test_jobs_wait_by_class_until_they_are_taken_out() -> None:
    view = SchedulerState([sim(0, G)])
    view.add_waiting(A, 1)
    view.add_waiting(A, 2)
    assert (view.backlog.count(A), view.backlog.count(B), view.backlog.classes()) == (2, 0, [A])
    assert view.remove_waiting(A, 1) and not view.remove_waiting(A, 1) and not view.remove_waiting(B, 2)
    assert view.remove_waiting(A, 2)
    assert view.backlog.classes() == []


def test_an_executor_that_nobody_needs_is_let_go_after_its_time() -> None:
    rig = PlannerHarness()
    rig.keep_alive_s["a"] = 60
    executor = rig.add_idle(A)
    assert rig.state.idle_expiry.next_at() == 60
    assert rig.state.idle_expiry.pop_due(59.9) == []
    assert rig.state.idle_expiry.pop_due(60) == [executor]
    assert rig.state.idle_expiry.pop_due(61) == []


def test_its_time_begins_anew_with_every_job() -> None:
    rig = PlannerHarness()
    rig.keep_alive_s["a"] = 60
    executor = rig.add_idle(A)
    rig.now = 50
    rig.add_idle(A)
    assert rig.state.idle_expiry.pop_due(60) == []
    assert rig.state.idle_expiry.next_at() == 110
    assert rig.state.idle_expiry.pop_due(110) == [executor]


def test_one_that_works_has_no_time_to_expire() -> None:
    rig = PlannerHarness()
    rig.add_idle(A)
    rig.submit(A)
    rig.plan_and_apply()
    assert rig.state.idle_expiry.next_at() is None
    assert rig.state.idle_expiry.pop_due(1000) == []


def test_one_that_woke_is_passed_over_when_its_time_comes() -> None:
    rig = PlannerHarness()
    rig.add_idle(A)
    rig.submit(A)
    rig.plan_and_apply()
    assert rig.state.idle_expiry.pop_due(1000) == []
    rig.finish(1)
    rig.state.evict(1)
    rig.remove_leaving()
    assert rig.state.idle_expiry.pop_due(10_000) == []


@pytest.mark.parametrize(("keep_alive_s", "expired"), [(0, [1]), (-1, [])])
def test_kept_not_at_all_or_for_ever(keep_alive_s: float, expired: list[int]) -> None:
    rig = PlannerHarness()
    rig.keep_alive_s["a"] = keep_alive_s
    rig.add_idle(A)
    assert rig.state.idle_expiry.pop_due(1e9) == expired
    assert rig.state.idle_expiry.next_at() is None


def test_one_for_which_jobs_wait_stays_until_they_are_gone() -> None:
    rig = PlannerHarness()
    rig.keep_alive_s["a"] = 0
    rig.add_running(A)
    rig.state.backlog.pause_queue("default", True)
    (n,) = rig.submit(A)
    (m,) = rig.submit(make_class("a", queue="other", need=8 * G))
    rig.finish(1)
    assert rig.state.idle_expiry.pop_due(10) == []
    rig.state.remove_waiting(A, n)
    assert rig.state.idle_expiry.pop_due(10) == []
    rig.state.remove_waiting(make_class("a", queue="other", need=8 * G), m)
    assert rig.state.idle_expiry.pop_due(10) == [1]


def test_one_that_did_its_jobs_goes_whoever_waits() -> None:
    rig = PlannerHarness()
    rig.max_jobs = 2
    rig.add_idle(A)
    rig.add_idle(A)
    rig.state.backlog.pause_queue("default", True)
    rig.submit(A)
    assert rig.state.idle_expiry.pop_due(rig.now) == [1]


def test_what_was_given_back_waits_before_the_others_in_its_old_order() -> None:
    rig = PlannerHarness(sim(0, 6 * G))
    rig.state.limits.set_stage_depth("a", "1", 4)
    rig.add_running(A)
    ns = rig.submit(A, 5)
    rig.plan_and_apply()
    rig.give_back(1, A, ns[:3])
    assert rig.state.backlog.by_class[A].peek(9) == ns
    assert list(rig.state.executors[1].assigned) == [1]
    rig.give_back(1, A, [99])
    assert rig.state.backlog.by_class[A].peek(9) == ns


def test_one_that_gave_everything_back_idles() -> None:
    rig = PlannerHarness()
    rig.add_running(A)
    rig.now = 7.0
    rig.give_back(1, A, [1])
    assert (rig.state.executors[1].state, rig.state.executors[1].idle_since) == ("idle", 7.0)
    assert rig.state.executors[1].jobs_done == 0


def test_one_that_went_under_its_job_says_what_it_held() -> None:
    rig = PlannerHarness()
    rig.state.limits.set_stage_depth("a", "1", 4)
    rig.add_running(A)
    rig.submit(A, 2)
    rig.plan_and_apply()
    assert rig.state.on_executor_gone(1, rig.now) == [(1, A), (2, A), (3, A)]
    assert rig.state.executors == {} and rig.state.residency.busy_by_handler == {"a": 0}
    assert rig.state.ledger.free_bytes("sim0") == 24 * G


def test_one_that_was_written_off_keeps_its_bytes_until_it_has_died() -> None:
    rig = PlannerHarness()
    rig.add_running(A)
    rig.state.on_executor_gone(1, None)
    assert rig.state.executors == {} and rig.state.residency.slots["sim0"].busy_count == 0
    assert rig.state.ledger.reserved_bytes("sim0") == 6 * G
    rig.state.ledger.draining.start(1, rig.now)
    assert rig.state.ledger.free_bytes("sim0") == 24 * G


def test_one_that_is_told_to_go_takes_nothing_and_holds_its_bytes() -> None:
    rig = PlannerHarness()
    rig.add_running(A)
    rig.state.evict(1)
    rig.state.evict(1)
    assert rig.state.on_attempt_ended(1, A, 1, rig.now)
    rig.state.on_loaded(1, None, rig.now)
    rig.submit(A)
    assert describe_actions(rig.plan_and_apply()) == ["load a 2 on sim0 6G"]
    assert rig.state.ledger.reserved_bytes("sim0") == 12 * G


def test_news_of_what_it_was_not_handed_changes_nothing() -> None:
    rig = PlannerHarness()
    rig.add_running(A)
    assert not rig.state.on_attempt_ended(1, A, 99, rig.now)
    assert not rig.state.on_attempt_ended(99, A, 1, rig.now)
    assert rig.state.executors[1].state == "running"


def test_one_whose_job_ended_while_it_loads_idles_when_loaded() -> None:
    rig = PlannerHarness()
    rig.submit(A)
    rig.plan_and_apply()
    assert rig.state.on_attempt_ended(1, A, 1, rig.now)
    assert list(rig.state.residency.slots["sim0"].idle) == []
    rig.state.on_loaded(1, 3 * G, rig.now)
    assert list(rig.state.residency.slots["sim0"].idle) == [1]
    assert rig.state.ledger.reserved_bytes("sim0") == 3 * G


def test_actions_that_no_plan_gave_are_refused() -> None:
    rig = PlannerHarness()
    rig.add_idle(A, used=0)
    rig.submit(A)
    rig.submit(B)
    with pytest.raises(ValueError, match="not free"):
        rig.state.load(7, B, 3, ("sim0",), 25 * G)
    rig.state.load(7, B, 3, ("sim0",), 24 * G)
    with pytest.raises(ValueError, match="promised to others"):
        rig.state.start(1, A, (2,))
    with pytest.raises(ValueError, match="loading"):
        rig.state.start(7, A, (2,))


def test_bytes_that_drain_come_free_by_readings() -> None:
    view = SchedulerState([nvidia(0, "GPU-0", "card", 24 * G)])
    rig = PlannerHarness()
    rig.state = view
    rig.add_running(make_class("a", 20 * G))
    view.on_executor_gone(1, 0.0)
    rig.submit(make_class("b", 20 * G))
    assert describe_actions(rig.plan_and_apply()) == []
    for _ in range(2):
        view.ledger.usage.record_reading("gpu0", 24 * G, 0)
    assert view.ledger.draining.sweep(1.0) == [1]
    assert describe_actions(rig.plan_and_apply()) == ["load b 2 on gpu0 20G"]


def test_what_a_small_peak_says_again_changes_nothing() -> None:
    rig = PlannerHarness()
    rig.record_peaks("a", 4 * G)
    rig.add_running(make_class("a", None))
    rig.add_running(make_class("b", None))
    rig.record_peaks("a", 4 * G)
    rig.record_peaks("c", 4 * G)
    assert rig.state.residency.slots["sim0"].exclusive_executor == 2


def test_a_gang_that_was_measured_shares_all_its_devices() -> None:
    rig = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G))
    rig.add_idle(make_class("gang", 2 * G))
    rig.add_idle(make_class("gang", None, gpus=2), used=0)
    rig.add_running(make_class("a", None))
    rig.record_peaks("gang", 4 * G)
    assert [slot.exclusive_executor for slot in rig.state.residency.slots.values()] == [None, 3]
    assert [rig.state.ledger.grant_bytes(each) for each in (1, 2)] == [2 * G, 6 * G + 64 * MIB]


def test_what_was_learned_before_is_used_after_a_restart() -> None:
    rig = PlannerHarness()
    rig.record_peaks("a", 4 * G)
    estimates = Estimator()
    estimates.load(rig.state.estimator.dump("a", "") or {})
    view = SchedulerState([sim(0, 24 * G)], estimator=estimates)
    assert view.memory_needs.need_bytes(make_class("a", None)) == 6 * G + 64 * MIB


def test_a_declared_need_gives_way_to_what_was_seen() -> None:
    rig = PlannerHarness()
    declared = make_class("a", 8 * G)
    rig.add_idle(declared, used=0)
    for _ in range(30):
        rig.state.record_run(declared, 4 * G, 1.0)
    need = rig.state.memory_needs.need_bytes(declared)
    assert need is not None and 4 * G < need < 5 * G
    rig.submit(declared)
    assert describe_actions(rig.plan_and_apply()) == ["start 1: 2"]
    rig.state.estimator.record_oom(declared, 8 * G)
    assert rig.state.memory_needs.need_bytes(declared) == 10 * G
    rig.submit(declared)
    rig.finish(1)
    assert describe_actions(rig.plan_and_apply()) == ["load a 3 on sim0 10G"]


def test_on_the_cpu_a_declared_need_is_what_a_process_is_held_to() -> None:
    view = SchedulerState([cpu("m", "c", 64 * G, 2)])
    declared = make_class("a", 8 * G)
    for _ in range(30):
        view.record_run(declared, 1 * G, 1.0)
    assert view.memory_needs.need_bytes(declared) == 8 * G
    view.estimator.record_oom(declared, 8 * G)
    assert view.memory_needs.need_bytes(declared) == 8 * G


def test_what_was_learned_on_a_larger_device_counts_as_unknown() -> None:
    rig = PlannerHarness(sim(0, 8 * G))
    rig.record_peaks("a", 20 * G)
    rig.submit(make_class("a", None))
    assert describe_actions(rig.plan_and_apply()) == ["load a 1 on sim0 8G alone"]
    assert SchedulerState().memory_needs.need_bytes(make_class("a", None)) is None


def test_what_no_device_could_ever_fit_is_told_with_the_figures() -> None:
    view = SchedulerState([sim(0, 24 * G), sim(1, 8 * G), cpu("m", "c", 64 * G, 2)])
    assert view.memory_needs.misfit(make_class("a", 24 * G)) is None
    assert view.memory_needs.misfit(make_class("a", None)) is None
    assert view.memory_needs.misfit(make_class("a", 60 * G, gpus=0)) is None
    misfit = view.memory_needs.misfit(make_class("a", 25 * G))
    assert misfit is not None and misfit["needed_bytes"] == 25 * G
    assert [each["grantable_bytes"] for each in misfit["devices"]] == [24 * G, 8 * G]
    gang = view.memory_needs.misfit(make_class("a", 9 * G, gpus=2))
    assert gang is not None and gang["gpus"] == 2
    assert view.memory_needs.misfit(make_class("a", None, gpus=3)) is not None


def test_explain_names_the_reason_and_the_figures() -> None:
    rig = PlannerHarness(sim(0, 24 * G), sim(1, 4 * G))
    rig.add_running(make_class("x", 20 * G))
    rig.submit(make_class("high", 6 * G, priority=90), 2)
    rig.submit(make_class("low", 6 * G, priority=10))
    rig.submit(make_class("f", 0, gpus=0, priority=90))
    (n,) = rig.submit(A)
    assert explain(rig.state, A, n) == {
        "reason": "waiting_for_memory",
        "devices": [
            {"device": "sim0", "free_bytes": 4 * G, "needed_bytes": 6 * G, "reason": "waiting_for_memory"},
            {"device": "sim1", "free_bytes": 4 * G, "needed_bytes": 6 * G, "reason": "too_small"},
        ],
        "jobs_ahead": 2,
        "tenant_lead_s": 0.0,
        "overtaken": 0,
    }


def explained(rig: PlannerHarness, need: int | None = 6 * G) -> str:
    cls = make_class("a", need)
    (n,) = rig.submit(cls)
    return str(explain(rig.state, cls, n)["reason"])


def test_explain_tells_what_a_plan_would() -> None:
    rig = PlannerHarness(sim(0, 24 * G, 2))
    assert explained(rig) == "ready"
    rig.state.backlog.pause_queue("default", True)
    assert explained(rig) == "paused"
    rig.state.backlog.pause_queue("default", False)
    rig.state.limits.set_handler_limit("a", 0)
    assert explained(rig) == "concurrency_limit"
    rig.state.limits.set_handler_limit("a", 5)
    rig.state.set_device_open("sim0", False)
    assert explained(rig) == "waiting_for_device"
    rig.state.set_device_open("sim0", True)
    rig.plan_and_apply()
    assert explained(rig) == "waiting_for_device"
    rig.state.residency.set_max_executors("sim0", 9)
    assert explained(rig, 20 * G) == "waiting_for_memory"


def test_explain_tells_why_a_device_takes_no_work() -> None:
    rig = PlannerHarness()
    (n,) = rig.submit(A)
    rig.state.set_device_open("sim0", False, "drained")
    assert explain(rig.state, A, n)["devices"][0]["reason"] == "drained"
    rig.state.set_device_open("sim0", False)
    assert explain(rig.state, A, n)["devices"][0]["reason"] == "waiting_for_device"
    rig.state.set_device_open("sim0", True, "drained")
    assert explain(rig.state, A, n)["devices"][0]["reason"] == "ready"


def test_a_gang_waits_for_memory_only_where_enough_devices_take_work() -> None:
    rig = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G))
    gang = make_class("gang", 8 * G, gpus=2)
    rig.state.set_device_open("sim1", False, "drained")
    (n,) = rig.submit(gang)
    assert rig.plan_and_apply().reasons == {gang: "waiting_for_device"}
    assert explain(rig.state, gang, n)["reason"] == "waiting_for_device"
    rig.state.set_device_open("sim1", True)
    assert explain(rig.state, gang, n)["reason"] == "ready"
    rig.state.remove_waiting(gang, n)
    rig.add_running(make_class("other", 20 * G))
    (n,) = rig.submit(gang)
    assert rig.plan_and_apply().reasons == {gang: "waiting_for_memory"}
    assert explain(rig.state, gang, n)["reason"] == "waiting_for_memory"


def test_explain_tells_of_one_that_runs_alone() -> None:
    rig = PlannerHarness()
    rig.add_running(make_class("x", None))
    assert explained(rig) == "waiting_for_device"


def test_stage_depth_is_kept_within_its_bounds() -> None:
    view = SchedulerState()
    for asked, kept in ((0, 1), (5, 5), (99, 16)):
        view.limits.set_stage_depth("a", "1", asked)
        assert view.limits.stage_depths["a", "1"] == kept


def test_a_device_may_be_added_closed() -> None:
    rig = PlannerHarness()
    rig.state.add_device(sim(1, 48 * G), is_open=False)
    rig.submit(make_class("a", 30 * G))
    assert plan(rig.state, 0).reasons == {make_class("a", 30 * G): "waiting_for_device"}
    rig.state.set_device_open("sim1", True)
    assert describe_actions(rig.plan_and_apply()) == ["load a 1 on sim1 30G"]
