from __future__ import annotations

import pytest

from gpu.devices.device import cpu, nvidia, sim
from gpu.estimates.estimator import Estimator
from gpu.estimates.observations import MIB
from gpu.planning.explain import explain
from gpu.planning.planner import plan
from gpu.scheduling.limits import NOTHING_RUNS
from gpu.scheduling.scheduler_state import SchedulerState
from tests.gpu.planner_harness import G, PlannerHarness, describe_actions, make_class

A, B = make_class("a"), make_class("b")


def test_jobs_wait_by_class_until_they_are_taken_out() -> None:
    state = SchedulerState([sim(0, G)])
    state.add_waiting(A, 1)
    state.add_waiting(A, 2)
    assert (state.backlog.count(A), state.backlog.count(B), state.backlog.classes()) == (2, 0, [A])
    assert state.remove_waiting(A, 1) and not state.remove_waiting(A, 1) and not state.remove_waiting(B, 2)
    assert state.remove_waiting(A, 2)
    assert state.backlog.classes() == []


def test_an_executor_that_nobody_needs_is_let_go_after_its_time() -> None:
    harness = PlannerHarness()
    harness.keep_alive_s["a"] = 60
    executor = harness.add_idle(A)
    assert harness.state.idle_expiry.next_at() == 60
    assert harness.state.idle_expiry.pop_due(59.9) == []
    assert harness.state.idle_expiry.pop_due(60) == [executor]
    assert harness.state.idle_expiry.pop_due(61) == []


def test_its_time_begins_anew_with_every_job() -> None:
    harness = PlannerHarness()
    harness.keep_alive_s["a"] = 60
    executor = harness.add_idle(A)
    harness.now = 50
    harness.add_idle(A)
    assert harness.state.idle_expiry.pop_due(60) == []
    assert harness.state.idle_expiry.next_at() == 110
    assert harness.state.idle_expiry.pop_due(110) == [executor]


def test_one_that_works_has_no_time_to_expire() -> None:
    harness = PlannerHarness()
    harness.add_idle(A)
    harness.submit(A)
    harness.plan_and_apply()
    assert harness.state.idle_expiry.next_at() is None
    assert harness.state.idle_expiry.pop_due(1000) == []


def test_one_that_woke_is_passed_over_when_its_time_comes() -> None:
    harness = PlannerHarness()
    harness.add_idle(A)
    harness.submit(A)
    harness.plan_and_apply()
    assert harness.state.idle_expiry.pop_due(1000) == []
    harness.finish(1)
    harness.state.evict(1)
    harness.remove_leaving()
    assert harness.state.idle_expiry.pop_due(10_000) == []


@pytest.mark.parametrize(("keep_alive_s", "expired"), [(0, [1]), (-1, [])])
def test_kept_not_at_all_or_for_ever(keep_alive_s: float, expired: list[int]) -> None:
    harness = PlannerHarness()
    harness.keep_alive_s["a"] = keep_alive_s
    harness.add_idle(A)
    assert harness.state.idle_expiry.pop_due(1e9) == expired
    assert harness.state.idle_expiry.next_at() is None


def test_one_for_which_jobs_wait_stays_until_they_are_gone() -> None:
    harness = PlannerHarness()
    harness.keep_alive_s["a"] = 0
    harness.add_running(A)
    harness.state.backlog.pause_queue("default", True)
    (job_number,) = harness.submit(A)
    (m,) = harness.submit(make_class("a", queue="other", need=8 * G))
    harness.finish(1)
    assert harness.state.idle_expiry.pop_due(10) == []
    harness.state.remove_waiting(A, job_number)
    assert harness.state.idle_expiry.pop_due(10) == []
    harness.state.remove_waiting(make_class("a", queue="other", need=8 * G), m)
    assert harness.state.idle_expiry.pop_due(10) == [1]


def test_one_that_did_its_jobs_goes_whoever_waits() -> None:
    harness = PlannerHarness()
    harness.max_jobs = 2
    harness.add_idle(A)
    harness.add_idle(A)
    harness.state.backlog.pause_queue("default", True)
    harness.submit(A)
    assert harness.state.idle_expiry.pop_due(harness.now) == [1]


def test_what_was_given_back_waits_before_the_others_in_its_old_order() -> None:
    harness = PlannerHarness(sim(0, 6 * G))
    harness.state.limits.set_stage_depth("a", "1", 4)
    harness.add_running(A)
    job_numbers = harness.submit(A, 5)
    harness.plan_and_apply()
    harness.give_back(1, A, job_numbers[:3])
    assert harness.state.backlog.by_class[A].peek(9) == job_numbers
    assert list(harness.state.executors[1].assigned) == [1]
    harness.give_back(1, A, [99])
    assert harness.state.backlog.by_class[A].peek(9) == job_numbers


def test_one_that_gave_everything_back_idles() -> None:
    harness = PlannerHarness()
    harness.add_running(A)
    harness.now = 7.0
    harness.give_back(1, A, [1])
    assert (harness.state.executors[1].state, harness.state.executors[1].idle_since) == ("idle", 7.0)
    assert harness.state.executors[1].jobs_done == 0


def test_one_that_went_under_its_job_says_what_it_held() -> None:
    harness = PlannerHarness()
    harness.state.limits.set_stage_depth("a", "1", 4)
    harness.add_running(A)
    harness.submit(A, 2)
    harness.plan_and_apply()
    assert harness.state.on_executor_gone(1, harness.now) == [(1, A), (2, A), (3, A)]
    assert harness.state.executors == {} and harness.state.limits.running.get("a") == NOTHING_RUNS
    assert harness.state.ledger.free_bytes("sim0") == 24 * G


def test_one_that_was_written_off_keeps_its_bytes_until_it_has_died() -> None:
    harness = PlannerHarness()
    harness.add_running(A)
    harness.state.on_executor_gone(1, None)
    assert harness.state.executors == {} and harness.state.residency.slots["sim0"].busy_count == 0
    assert harness.state.ledger.reserved_bytes("sim0") == 6 * G
    harness.state.ledger.draining.start(1, harness.now)
    assert harness.state.ledger.free_bytes("sim0") == 24 * G


def test_one_that_is_told_to_go_takes_nothing_and_holds_its_bytes() -> None:
    harness = PlannerHarness()
    harness.add_running(A)
    harness.state.evict(1)
    harness.state.evict(1)
    assert harness.state.on_attempt_ended(1, A, 1, harness.now)
    harness.state.on_loaded(1, None, harness.now)
    harness.submit(A)
    assert describe_actions(harness.plan_and_apply()) == ["load a 2 on sim0 6G"]
    assert harness.state.ledger.reserved_bytes("sim0") == 12 * G


def test_news_of_what_it_was_not_handed_changes_nothing() -> None:
    harness = PlannerHarness()
    harness.add_running(A)
    assert not harness.state.on_attempt_ended(1, A, 99, harness.now)
    assert not harness.state.on_attempt_ended(99, A, 1, harness.now)
    assert harness.state.executors[1].state == "running"


def test_one_whose_job_ended_while_it_loads_idles_when_loaded() -> None:
    harness = PlannerHarness()
    harness.submit(A)
    harness.plan_and_apply()
    assert harness.state.on_attempt_ended(1, A, 1, harness.now)
    assert list(harness.state.residency.slots["sim0"].idle) == []
    harness.state.on_loaded(1, 3 * G, harness.now)
    assert list(harness.state.residency.slots["sim0"].idle) == [1]
    assert harness.state.ledger.reserved_bytes("sim0") == 3 * G


def test_actions_that_no_plan_gave_are_refused() -> None:
    harness = PlannerHarness()
    harness.add_idle(A, used=0)
    harness.submit(A)
    harness.submit(B)
    with pytest.raises(ValueError, match="not free"):
        harness.state.load(7, B, 3, ("sim0",), 25 * G)
    harness.state.load(7, B, 3, ("sim0",), 24 * G)
    with pytest.raises(ValueError, match="granted to others"):
        harness.state.start(1, A, (2,))
    with pytest.raises(ValueError, match="loading"):
        harness.state.start(7, A, (2,))


def test_bytes_that_drain_come_free_by_readings() -> None:
    state = SchedulerState([nvidia(0, "GPU-0", "card", 24 * G)])
    harness = PlannerHarness()
    harness.state = state
    harness.add_running(make_class("a", 20 * G))
    state.on_executor_gone(1, 0.0)
    harness.submit(make_class("b", 20 * G))
    assert describe_actions(harness.plan_and_apply()) == []
    for _ in range(2):
        state.ledger.usage.record_reading("gpu0", 24 * G, 0)
    assert state.ledger.draining.sweep(1.0) == [1]
    assert describe_actions(harness.plan_and_apply()) == ["load b 2 on gpu0 20G"]


def test_what_a_small_peak_says_again_changes_nothing() -> None:
    harness = PlannerHarness()
    harness.record_peaks("a", 4 * G)
    harness.add_running(make_class("a", None))
    harness.add_running(make_class("b", None))
    harness.record_peaks("a", 4 * G)
    harness.record_peaks("c", 4 * G)
    assert harness.state.residency.slots["sim0"].exclusive_executor == 2


def test_a_gang_that_was_measured_shares_all_its_devices() -> None:
    harness = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G))
    harness.add_idle(make_class("gang", 2 * G))
    harness.add_idle(make_class("gang", None, gpus=2), used=0)
    harness.add_running(make_class("a", None))
    harness.record_peaks("gang", 4 * G)
    assert [slot.exclusive_executor for slot in harness.state.residency.slots.values()] == [None, 3]
    assert [harness.state.ledger.grant_bytes(each) for each in (1, 2)] == [2 * G, 6 * G + 64 * MIB]


def test_what_was_learned_before_is_used_after_a_restart() -> None:
    harness = PlannerHarness()
    harness.record_peaks("a", 4 * G)
    estimates = Estimator()
    estimates.load(harness.state.estimator.dump("a", "") or {})
    state = SchedulerState([sim(0, 24 * G)], estimator=estimates)
    assert state.memory_needs.need_bytes(make_class("a", None)) == 6 * G + 64 * MIB


def test_a_declared_need_gives_way_to_what_was_seen() -> None:
    harness = PlannerHarness()
    declared = make_class("a", 8 * G)
    harness.add_idle(declared, used=0)
    for _ in range(30):
        harness.state.record_run(declared, 4 * G, 1.0)
    need = harness.state.memory_needs.need_bytes(declared)
    assert need is not None and 4 * G < need < 5 * G
    harness.submit(declared)
    assert describe_actions(harness.plan_and_apply()) == ["start 1: 2"]
    harness.state.estimator.record_oom(declared, 8 * G)
    assert harness.state.memory_needs.need_bytes(declared) == 10 * G
    harness.submit(declared)
    harness.finish(1)
    assert describe_actions(harness.plan_and_apply()) == ["load a 3 on sim0 10G"]


def test_on_the_cpu_a_declared_need_is_what_a_process_is_held_to() -> None:
    state = SchedulerState([cpu("m", "c", 64 * G, 2)])
    declared = make_class("a", 8 * G)
    for _ in range(30):
        state.record_run(declared, 1 * G, 1.0)
    assert state.memory_needs.need_bytes(declared) == 8 * G
    state.estimator.record_oom(declared, 8 * G)
    assert state.memory_needs.need_bytes(declared) == 8 * G


def test_what_was_learned_on_a_larger_device_counts_as_unknown() -> None:
    harness = PlannerHarness(sim(0, 8 * G))
    harness.record_peaks("a", 20 * G)
    harness.submit(make_class("a", None))
    assert describe_actions(harness.plan_and_apply()) == ["load a 1 on sim0 8G alone"]
    assert SchedulerState().memory_needs.need_bytes(make_class("a", None)) is None


def test_what_no_device_could_ever_fit_is_told_with_the_figures() -> None:
    state = SchedulerState([sim(0, 24 * G), sim(1, 8 * G), cpu("m", "c", 64 * G, 2)])
    assert state.memory_needs.misfit(make_class("a", 24 * G)) is None
    assert state.memory_needs.misfit(make_class("a", None)) is None
    assert state.memory_needs.misfit(make_class("a", 60 * G, gpus=0)) is None
    misfit = state.memory_needs.misfit(make_class("a", 25 * G))
    assert misfit is not None and misfit["needed_bytes"] == 25 * G
    assert [each["grantable_bytes"] for each in misfit["devices"]] == [24 * G, 8 * G]
    gang = state.memory_needs.misfit(make_class("a", 9 * G, gpus=2))
    assert gang is not None and gang["gpus"] == 2
    assert state.memory_needs.misfit(make_class("a", None, gpus=3)) is not None


def test_explain_names_the_reason_and_the_figures() -> None:
    harness = PlannerHarness(sim(0, 24 * G), sim(1, 4 * G))
    harness.add_running(make_class("x", 20 * G))
    harness.submit(make_class("high", 6 * G, priority=90), 2)
    harness.submit(make_class("low", 6 * G, priority=10))
    harness.submit(make_class("f", 0, gpus=0, priority=90))
    (job_number,) = harness.submit(A)
    counts = {"max_executors": 8, "max_resident": 64, "pinned": 0, "pinned_bytes": 0}
    assert explain(harness.state, A, job_number) == {
        "reason": "waiting_for_memory",
        "devices": [
            {"device": "sim0", "free_bytes": 4 * G, "needed_bytes": 6 * G, "reason": "waiting_for_memory"}
            | {"at_work": 1, "residents": 1, **counts},
            {"device": "sim1", "free_bytes": 4 * G, "needed_bytes": 6 * G, "reason": "too_small"}
            | {"at_work": 0, "residents": 0, **counts},
        ],
        "jobs_ahead": 2,
        "tenant_lead_s": 0.0,
        "overtaken": 0,
    }


def explained(harness: PlannerHarness, need: int | None = 6 * G) -> str:
    job_class = make_class("a", need)
    (job_number,) = harness.submit(job_class)
    return str(explain(harness.state, job_class, job_number)["reason"])


def test_explain_tells_what_a_plan_would() -> None:
    harness = PlannerHarness(sim(0, 24 * G, 2))
    assert explained(harness) == "ready"
    harness.state.backlog.pause_queue("default", True)
    assert explained(harness) == "paused"
    harness.state.backlog.pause_queue("default", False)
    harness.state.limits.set_handler_limit("a", 0)
    assert explained(harness) == "concurrency_limit"
    harness.state.limits.set_handler_limit("a", 5)
    harness.state.set_device_open("sim0", False)
    assert explained(harness) == "waiting_for_device"
    harness.state.set_device_open("sim0", True)
    harness.plan_and_apply()
    assert explained(harness) == "waiting_for_device"
    harness.state.residency.set_max_executors("sim0", 9)
    assert explained(harness, 20 * G) == "waiting_for_memory"


def test_explain_tells_why_a_device_takes_no_work() -> None:
    harness = PlannerHarness()
    (job_number,) = harness.submit(A)
    harness.state.set_device_open("sim0", False, "drained")
    assert explain(harness.state, A, job_number)["devices"][0]["reason"] == "drained"
    harness.state.set_device_open("sim0", False)
    assert explain(harness.state, A, job_number)["devices"][0]["reason"] == "waiting_for_device"
    harness.state.set_device_open("sim0", True, "drained")
    assert explain(harness.state, A, job_number)["devices"][0]["reason"] == "ready"


def test_a_gang_waits_for_memory_only_where_enough_devices_take_work() -> None:
    harness = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G))
    gang = make_class("gang", 8 * G, gpus=2)
    harness.state.set_device_open("sim1", False, "drained")
    (job_number,) = harness.submit(gang)
    assert harness.plan_and_apply().reasons == {gang: "waiting_for_device"}
    assert explain(harness.state, gang, job_number)["reason"] == "waiting_for_device"
    harness.state.set_device_open("sim1", True)
    assert explain(harness.state, gang, job_number)["reason"] == "ready"
    harness.state.remove_waiting(gang, job_number)
    harness.add_running(make_class("other", 20 * G))
    (job_number,) = harness.submit(gang)
    assert harness.plan_and_apply().reasons == {gang: "waiting_for_memory"}
    assert explain(harness.state, gang, job_number)["reason"] == "waiting_for_memory"


def test_explain_tells_of_one_that_runs_alone() -> None:
    harness = PlannerHarness()
    harness.add_running(make_class("x", None))
    assert explained(harness) == "waiting_for_device"


def test_stage_depth_is_kept_within_its_bounds() -> None:
    state = SchedulerState()
    for asked, kept in ((0, 1), (5, 5), (99, 16)):
        state.limits.set_stage_depth("a", "1", asked)
        assert state.limits.stage_depths["a", "1"] == kept


def test_a_device_may_be_added_closed() -> None:
    harness = PlannerHarness()
    harness.state.add_device(sim(1, 48 * G), is_open=False)
    harness.submit(make_class("a", 30 * G))
    assert plan(harness.state, 0).reasons == {make_class("a", 30 * G): "waiting_for_device"}
    harness.state.set_device_open("sim1", True)
    assert describe_actions(harness.plan_and_apply()) == ["load a 1 on sim1 30G"]
