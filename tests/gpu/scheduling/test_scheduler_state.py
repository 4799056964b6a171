from __future__ import annotations

import pytest

from gpu.devices.device import cpu, nvidia, sim
from gpu.estimates.estimator import Estimator
from gpu.estimates.observations import MIB
from gpu.planning.explain import explain
from gpu.planning.planner import plan
from gpu.scheduling.scheduler_state import SchedulerState
from tests.gpu.planner_harness import G, Rig, job_class, told

A, B = job_class("a"), job_class("b")


def test_jobs_wait_by_class_until_they_are_taken_out() -> None:
    view = SchedulerState([sim(0, G)])
    view.add_waiting(A, 1)
    view.add_waiting(A, 2)
    assert (view.backlog.count(A), view.backlog.count(B), view.backlog.classes()) == (2, 0, [A])
    assert view.remove_waiting(A, 1) and not view.remove_waiting(A, 1) and not view.remove_waiting(B, 2)
    assert view.remove_waiting(A, 2)
    assert view.backlog.classes() == []


def test_an_executor_that_nobody_needs_is_let_go_after_its_time() -> None:
    rig = Rig()
    rig.keep_alive_s["a"] = 60
    executor = rig.idle(A)
    assert rig.view.idle_expiry.next_at() == 60
    assert rig.view.idle_expiry.pop_due(59.9) == []
    assert rig.view.idle_expiry.pop_due(60) == [executor]
    assert rig.view.idle_expiry.pop_due(61) == []


def test_its_time_begins_anew_with_every_job() -> None:
    rig = Rig()
    rig.keep_alive_s["a"] = 60
    executor = rig.idle(A)
    rig.now = 50
    rig.idle(A)
    assert rig.view.idle_expiry.pop_due(60) == []
    assert rig.view.idle_expiry.next_at() == 110
    assert rig.view.idle_expiry.pop_due(110) == [executor]


def test_one_that_works_has_no_time_to_expire() -> None:
    rig = Rig()
    rig.idle(A)
    rig.submit(A)
    rig.turn()
    assert rig.view.idle_expiry.next_at() is None
    assert rig.view.idle_expiry.pop_due(1000) == []


def test_one_that_woke_is_passed_over_when_its_time_comes() -> None:
    rig = Rig()
    rig.idle(A)
    rig.submit(A)
    rig.turn()
    assert rig.view.idle_expiry.pop_due(1000) == []
    rig.finish(1)
    rig.view.evict(1)
    rig.bury_leaving()
    assert rig.view.idle_expiry.pop_due(10_000) == []


@pytest.mark.parametrize(("keep_alive_s", "expired"), [(0, [1]), (-1, [])])
def test_kept_not_at_all_or_for_ever(keep_alive_s: float, expired: list[int]) -> None:
    rig = Rig()
    rig.keep_alive_s["a"] = keep_alive_s
    rig.idle(A)
    assert rig.view.idle_expiry.pop_due(1e9) == expired
    assert rig.view.idle_expiry.next_at() is None


def test_one_for_which_jobs_wait_stays_until_they_are_gone() -> None:
    rig = Rig()
    rig.keep_alive_s["a"] = 0
    rig.running(A)
    rig.view.backlog.pause_queue("default", True)
    (n,) = rig.submit(A)
    (m,) = rig.submit(job_class("a", queue="other", need=8 * G))
    rig.finish(1)
    assert rig.view.idle_expiry.pop_due(10) == []
    rig.view.remove_waiting(A, n)
    assert rig.view.idle_expiry.pop_due(10) == []
    rig.view.remove_waiting(job_class("a", queue="other", need=8 * G), m)
    assert rig.view.idle_expiry.pop_due(10) == [1]


def test_one_that_did_its_jobs_goes_whoever_waits() -> None:
    rig = Rig()
    rig.max_jobs = 2
    rig.idle(A)
    rig.idle(A)
    rig.view.backlog.pause_queue("default", True)
    rig.submit(A)
    assert rig.view.idle_expiry.pop_due(rig.now) == [1]


def test_what_was_given_back_waits_before_the_others_in_its_old_order() -> None:
    rig = Rig(sim(0, 6 * G))
    rig.view.limits.set_stage_depth("a", "1", 4)
    rig.running(A)
    ns = rig.submit(A, 5)
    rig.turn()
    rig.give_back(1, A, ns[:3])
    assert rig.view.backlog.by_class[A].peek(9) == ns
    assert list(rig.view.executors[1].assigned) == [1]
    rig.give_back(1, A, [99])
    assert rig.view.backlog.by_class[A].peek(9) == ns


def test_one_that_gave_everything_back_idles() -> None:
    rig = Rig()
    rig.running(A)
    rig.now = 7.0
    rig.give_back(1, A, [1])
    assert (rig.view.executors[1].state, rig.view.executors[1].idle_since) == ("idle", 7.0)
    assert rig.view.executors[1].jobs_done == 0


def test_one_that_went_under_its_job_says_what_it_held() -> None:
    rig = Rig()
    rig.view.limits.set_stage_depth("a", "1", 4)
    rig.running(A)
    rig.submit(A, 2)
    rig.turn()
    assert rig.view.on_executor_gone(1, rig.now) == [(1, A), (2, A), (3, A)]
    assert rig.view.executors == {} and rig.view.residency.busy_by_handler == {"a": 0}
    assert rig.view.ledger.free_bytes("sim0") == 24 * G


def test_one_that_was_written_off_keeps_its_bytes_until_it_has_died() -> None:
    rig = Rig()
    rig.running(A)
    rig.view.on_executor_gone(1, None)
    assert rig.view.executors == {} and rig.view.residency.slots["sim0"].busy_count == 0
    assert rig.view.ledger.reserved_bytes("sim0") == 6 * G
    rig.view.ledger.draining.start(1, rig.now)
    assert rig.view.ledger.free_bytes("sim0") == 24 * G


def test_one_that_is_told_to_go_takes_nothing_and_holds_its_bytes() -> None:
    rig = Rig()
    rig.running(A)
    rig.view.evict(1)
    rig.view.evict(1)
    assert rig.view.on_attempt_ended(1, A, 1, rig.now)
    rig.view.on_loaded(1, None, rig.now)
    rig.submit(A)
    assert told(rig.turn()) == ["load a 2 on sim0 6G"]
    assert rig.view.ledger.reserved_bytes("sim0") == 12 * G


def test_news_of_what_it_was_not_handed_changes_nothing() -> None:
    rig = Rig()
    rig.running(A)
    assert not rig.view.on_attempt_ended(1, A, 99, rig.now)
    assert not rig.view.on_attempt_ended(99, A, 1, rig.now)
    assert rig.view.executors[1].state == "running"


def test_one_whose_job_ended_while_it_loads_idles_when_loaded() -> None:
    rig = Rig()
    rig.submit(A)
    rig.turn()
    assert rig.view.on_attempt_ended(1, A, 1, rig.now)
    assert list(rig.view.residency.slots["sim0"].idle) == []
    rig.view.on_loaded(1, 3 * G, rig.now)
    assert list(rig.view.residency.slots["sim0"].idle) == [1]
    assert rig.view.ledger.reserved_bytes("sim0") == 3 * G


def test_actions_that_no_plan_gave_are_refused() -> None:
    rig = Rig()
    rig.idle(A, used=0)
    rig.submit(A)
    rig.submit(B)
    with pytest.raises(ValueError, match="not free"):
        rig.view.load(7, B, 3, ("sim0",), 25 * G)
    rig.view.load(7, B, 3, ("sim0",), 24 * G)
    with pytest.raises(ValueError, match="promised to others"):
        rig.view.start(1, A, (2,))
    with pytest.raises(ValueError, match="loading"):
        rig.view.start(7, A, (2,))


def test_bytes_that_drain_come_free_by_readings() -> None:
    view = SchedulerState([nvidia(0, "GPU-0", "card", 24 * G)])
    rig = Rig()
    rig.view = view
    rig.running(job_class("a", 20 * G))
    view.on_executor_gone(1, 0.0)
    rig.submit(job_class("b", 20 * G))
    assert told(rig.turn()) == []
    for _ in range(2):
        view.ledger.usage.record_reading("gpu0", 24 * G, 0)
    assert view.ledger.draining.sweep(1.0) == [1]
    assert told(rig.turn()) == ["load b 2 on gpu0 20G"]


def test_what_a_small_peak_says_again_changes_nothing() -> None:
    rig = Rig()
    rig.learn("a", 4 * G)
    rig.running(job_class("a", None))
    rig.running(job_class("b", None))
    rig.learn("a", 4 * G)
    rig.learn("c", 4 * G)
    assert rig.view.residency.slots["sim0"].exclusive_executor == 2


def test_a_gang_that_was_measured_shares_all_its_devices() -> None:
    rig = Rig(sim(0, 24 * G), sim(1, 24 * G))
    rig.idle(job_class("gang", 2 * G))
    rig.idle(job_class("gang", None, gpus=2), used=0)
    rig.running(job_class("a", None))
    rig.learn("gang", 4 * G)
    assert [slot.exclusive_executor for slot in rig.view.residency.slots.values()] == [None, 3]
    assert [rig.view.ledger.grant_bytes(each) for each in (1, 2)] == [2 * G, 6 * G + 64 * MIB]


def test_what_was_learned_before_is_used_after_a_restart() -> None:
    rig = Rig()
    rig.learn("a", 4 * G)
    estimates = Estimator()
    estimates.load(rig.view.estimator.dump("a", "") or {})
    view = SchedulerState([sim(0, 24 * G)], estimator=estimates)
    assert view.memory_needs.need_bytes(job_class("a", None)) == 6 * G + 64 * MIB


def test_a_declared_need_gives_way_to_what_was_seen() -> None:
    rig = Rig()
    declared = job_class("a", 8 * G)
    rig.idle(declared, used=0)
    for _ in range(30):
        rig.view.record_run(declared, 4 * G, 1.0)
    need = rig.view.memory_needs.need_bytes(declared)
    assert need is not None and 4 * G < need < 5 * G
    rig.submit(declared)
    assert told(rig.turn()) == ["start 1: 2"]
    rig.view.estimator.record_oom(declared, 8 * G)
    assert rig.view.memory_needs.need_bytes(declared) == 10 * G
    rig.submit(declared)
    rig.finish(1)
    assert told(rig.turn()) == ["load a 3 on sim0 10G"]


def test_on_the_cpu_a_declared_need_is_what_a_process_is_held_to() -> None:
    view = SchedulerState([cpu("m", "c", 64 * G, 2)])
    declared = job_class("a", 8 * G)
    for _ in range(30):
        view.record_run(declared, 1 * G, 1.0)
    assert view.memory_needs.need_bytes(declared) == 8 * G
    view.estimator.record_oom(declared, 8 * G)
    assert view.memory_needs.need_bytes(declared) == 8 * G


def test_what_was_learned_on_a_larger_device_counts_as_unknown() -> None:
    rig = Rig(sim(0, 8 * G))
    rig.learn("a", 20 * G)
    rig.submit(job_class("a", None))
    assert told(rig.turn()) == ["load a 1 on sim0 8G alone"]
    assert SchedulerState().memory_needs.need_bytes(job_class("a", None)) is None


def test_what_no_device_could_ever_fit_is_told_with_the_figures() -> None:
    view = SchedulerState([sim(0, 24 * G), sim(1, 8 * G), cpu("m", "c", 64 * G, 2)])
    assert view.memory_needs.misfit(job_class("a", 24 * G)) is None
    assert view.memory_needs.misfit(job_class("a", None)) is None
    assert view.memory_needs.misfit(job_class("a", 60 * G, gpus=0)) is None
    misfit = view.memory_needs.misfit(job_class("a", 25 * G))
    assert misfit is not None and misfit["needed_bytes"] == 25 * G
    assert [each["grantable_bytes"] for each in misfit["devices"]] == [24 * G, 8 * G]
    gang = view.memory_needs.misfit(job_class("a", 9 * G, gpus=2))
    assert gang is not None and gang["gpus"] == 2
    assert view.memory_needs.misfit(job_class("a", None, gpus=3)) is not None


def test_explain_names_the_reason_and_the_figures() -> None:
    rig = Rig(sim(0, 24 * G), sim(1, 4 * G))
    rig.running(job_class("x", 20 * G))
    rig.submit(job_class("high", 6 * G, priority=90), 2)
    rig.submit(job_class("low", 6 * G, priority=10))
    rig.submit(job_class("f", 0, gpus=0, priority=90))
    (n,) = rig.submit(A)
    assert explain(rig.view, A, n) == {
        "reason": "waiting_for_memory",
        "devices": [
            {"device": "sim0", "free_bytes": 4 * G, "needed_bytes": 6 * G, "reason": "waiting_for_memory"},
            {"device": "sim1", "free_bytes": 4 * G, "needed_bytes": 6 * G, "reason": "too_small"},
        ],
        "jobs_ahead": 2,
        "tenant_lead_s": 0.0,
        "overtaken": 0,
    }


def explained(rig: Rig, need: int | None = 6 * G) -> str:
    cls = job_class("a", need)
    (n,) = rig.submit(cls)
    return str(explain(rig.view, cls, n)["reason"])


def test_explain_tells_what_a_plan_would() -> None:
    rig = Rig(sim(0, 24 * G, 2))
    assert explained(rig) == "ready"
    rig.view.backlog.pause_queue("default", True)
    assert explained(rig) == "paused"
    rig.view.backlog.pause_queue("default", False)
    rig.view.limits.set_handler_limit("a", 0)
    assert explained(rig) == "concurrency_limit"
    rig.view.limits.set_handler_limit("a", 5)
    rig.view.set_device_open("sim0", False)
    assert explained(rig) == "waiting_for_device"
    rig.view.set_device_open("sim0", True)
    rig.turn()
    assert explained(rig) == "waiting_for_device"
    rig.view.residency.set_max_executors("sim0", 9)
    assert explained(rig, 20 * G) == "waiting_for_memory"


def test_explain_tells_why_a_device_takes_no_work() -> None:
    rig = Rig()
    (n,) = rig.submit(A)
    rig.view.set_device_open("sim0", False, "drained")
    assert explain(rig.view, A, n)["devices"][0]["reason"] == "drained"
    rig.view.set_device_open("sim0", False)
    assert explain(rig.view, A, n)["devices"][0]["reason"] == "waiting_for_device"
    rig.view.set_device_open("sim0", True, "drained")
    assert explain(rig.view, A, n)["devices"][0]["reason"] == "ready"


def test_a_gang_waits_for_memory_only_where_enough_devices_take_work() -> None:
    rig = Rig(sim(0, 24 * G), sim(1, 24 * G))
    gang = job_class("gang", 8 * G, gpus=2)
    rig.view.set_device_open("sim1", False, "drained")
    (n,) = rig.submit(gang)
    assert rig.turn().reasons == {gang: "waiting_for_device"}
    assert explain(rig.view, gang, n)["reason"] == "waiting_for_device"
    rig.view.set_device_open("sim1", True)
    assert explain(rig.view, gang, n)["reason"] == "ready"
    rig.view.remove_waiting(gang, n)
    rig.running(job_class("other", 20 * G))
    (n,) = rig.submit(gang)
    assert rig.turn().reasons == {gang: "waiting_for_memory"}
    assert explain(rig.view, gang, n)["reason"] == "waiting_for_memory"


def test_explain_tells_of_one_that_runs_alone() -> None:
    rig = Rig()
    rig.running(job_class("x", None))
    assert explained(rig) == "waiting_for_device"


def test_stage_depth_is_kept_within_its_bounds() -> None:
    view = SchedulerState()
    for asked, kept in ((0, 1), (5, 5), (99, 16)):
        view.limits.set_stage_depth("a", "1", asked)
        assert view.limits.stage_depths["a", "1"] == kept


def test_a_device_may_be_added_closed() -> None:
    rig = Rig()
    rig.view.add_device(sim(1, 48 * G), is_open=False)
    rig.submit(job_class("a", 30 * G))
    assert plan(rig.view, 0).reasons == {job_class("a", 30 * G): "waiting_for_device"}
    rig.view.set_device_open("sim1", True)
    assert told(rig.turn()) == ["load a 1 on sim1 30G"]
