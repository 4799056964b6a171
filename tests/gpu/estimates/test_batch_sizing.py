"""Batches and slots: the sizes that memory teaches, and the plan that gathers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpu.devices.device import sim
from gpu.estimates.batch_sizing import RAISE_AFTER_BATCHES, RAISE_AFTER_BATCHES_MAX, BatchSizing, BatchTerms
from gpu.planning.planner import plan
from tests.gpu.planner_harness import G, PlannerHarness, describe_actions, make_class

WAIT_S = 0.5
PLAIN = make_class("b", 6 * G)


def make_batch_sizing(most: int = 8) -> BatchSizing:
    made = BatchSizing()
    made.set_handler("b", "1", BatchTerms(most, WAIT_S))
    return made


def make_harness(most: int = 4, *, slots: int = 1, executors: int = 8) -> PlannerHarness:
    made = PlannerHarness(sim(0, 24 * G, max_executors=executors))
    made.state.batch_sizing.set_handler("b", "1", None if slots > 1 else BatchTerms(most, WAIT_S), slots)
    return made


# The sizes.


def test_what_has_no_batch_goes_one_by_one() -> None:
    assert (make_batch_sizing().batch_max(make_class("other")), BatchSizing().batch_max(PLAIN)) == (0, 0)
    assert (
        make_batch_sizing().jobs_per_run(make_class("other")),
        make_batch_sizing().jobs_per_run(PLAIN),
    ) == (1, 8)
    assert make_batch_sizing().batch_max(replace(PLAIN, alone_in_executor=True)) == 1


def test_what_is_known_anew_is_forgotten_before() -> None:
    made = make_batch_sizing()
    made.set_handler("b", "1", None, slots=3)
    assert (made.batch_max(PLAIN), made.slot_count(PLAIN), made.jobs_per_run(PLAIN)) == (0, 3, 3)
    assert made.slot_count(replace(PLAIN, alone_in_executor=True)) == 1
    assert made.slot_count(make_class("other")) == 1
    assert made.runs_several_jobs("b", "1") and make_batch_sizing().runs_several_jobs("b", "1")
    assert not made.runs_several_jobs("b", "2")


@pytest.mark.parametrize(("waiting", "at"), [(1, 10.0 + WAIT_S), (7, 10.0 + WAIT_S), (8, 10.0), (99, 10.0)])
def test_a_full_batch_waits_for_nothing(waiting: int, at: float) -> None:
    assert make_batch_sizing().batch_deadline(PLAIN, waiting, 10.0) == at


def test_a_batch_that_ran_out_of_memory_is_halved_once_for_all_its_jobs() -> None:
    made = make_batch_sizing(9)
    for _ in range(9):
        made.record_oom(PLAIN, 9)
    assert made.batch_max(PLAIN) == 4
    made.record_oom(PLAIN, 4)
    assert made.batch_max(PLAIN) == 2
    for count in (2, 1, 1):
        made.record_oom(PLAIN, count)
    assert made.batch_max(PLAIN) == 1
    assert made.batch_max(replace(PLAIN, model="m")) == made.batch_max(replace(PLAIN, size="64")) == 9
    assert made.learned_sizes("b") == {("", ""): 1} and made.learned_sizes("other") == {}


def test_it_grows_again_slowly_and_never_beyond_what_is_asked_for() -> None:
    made = make_batch_sizing()
    made.record_oom(PLAIN, 8)
    for size in (4, 5, 6, 7):
        assert made.batch_max(PLAIN) == size
        made.record_run(PLAIN, size - 1)
        for _ in range(RAISE_AFTER_BATCHES * size - 1):
            made.record_run(PLAIN, size)
        assert made.batch_max(PLAIN) == size
        made.record_run(PLAIN, size)
    for _ in range(RAISE_AFTER_BATCHES * 8):
        made.record_run(PLAIN, 8)
    assert made.batch_max(PLAIN) == 8
    made.record_run(make_class("other"), 8)


def test_each_further_cut_makes_it_more_patient() -> None:
    made = make_batch_sizing()
    made.record_oom(PLAIN, 2)
    for patience in (RAISE_AFTER_BATCHES, 2 * RAISE_AFTER_BATCHES, 4 * RAISE_AFTER_BATCHES):
        for _ in range(patience - 1):
            made.record_run(PLAIN, 1)
        assert made.batch_max(PLAIN) == 1
        made.record_run(PLAIN, 1)
        assert made.batch_max(PLAIN) == 2
        made.record_oom(PLAIN, 2)
    for _ in range(10):
        for _ in range(RAISE_AFTER_BATCHES_MAX):
            made.record_run(PLAIN, 1)
        made.record_oom(PLAIN, 2)
    for _ in range(RAISE_AFTER_BATCHES_MAX):
        made.record_run(PLAIN, 1)
    assert made.batch_max(PLAIN) == 2


# The plan.


def test_a_cold_executor_takes_what_is_there_as_one_batch() -> None:
    made = make_harness()
    made.submit(PLAIN, 3)
    assert describe_actions(made.plan_and_apply()) == ["load b 1,2,3 on sim0 6G"]
    assert list(made.state.executors[1].assigned) == [1, 2, 3]


def test_an_idle_executor_gets_a_full_batch_at_once_and_the_rest_gathers() -> None:
    made = make_harness()
    made.add_idle(PLAIN)
    made.submit(PLAIN, 6)
    turn = made.plan_and_apply()
    assert describe_actions(turn) == ["start 1: 2,3,4,5"]
    assert (turn.replan_at, turn.reasons) == (made.now + WAIT_S, {})


def test_a_batch_that_is_not_full_goes_when_its_oldest_has_waited_enough() -> None:
    made = make_harness()
    made.add_idle(PLAIN)
    made.submit(PLAIN, 2)
    turn = made.plan_and_apply()
    assert (describe_actions(turn), turn.replan_at) == ([], made.now + WAIT_S)
    made.now += WAIT_S / 2
    made.submit(PLAIN)
    assert describe_actions(made.plan_and_apply()) == []
    made.now = turn.replan_at
    assert describe_actions(made.plan_and_apply()) == ["start 1: 2,3,4"]


def test_a_batch_that_gathers_keeps_nobody_from_starting() -> None:
    made = make_harness()
    made.add_idle(PLAIN)
    made.submit(PLAIN, 2)
    made.submit(make_class("a", 20 * G))
    made.plan_and_apply()
    assert made.state.executors[1].state == "leaving"


def test_only_full_batches_are_staged_and_as_many_as_are_short() -> None:
    made = make_harness(executors=1)
    made.state.limits.set_stage_depth("b", "1", 3)
    executor = made.add_running(PLAIN)
    made.submit(PLAIN, 13)
    assert describe_actions(made.plan_and_apply()) == [
        f"start {executor}: 2,3,4,5",
        f"start {executor}: 6,7,8,9",
    ]
    made.submit(PLAIN, 4)
    made.state.mark_long_running(executor, 1)
    assert describe_actions(made.plan_and_apply()) == []


def test_batches_are_of_one_group() -> None:
    made = make_harness()
    made.add_idle(PLAIN)
    one, two = replace(PLAIN, group="x"), replace(PLAIN, group="y")
    for _ in range(4):
        made.submit(one)
        made.submit(two)
    assert describe_actions(made.plan_and_apply()) == ["start 1: 2,4,6,8", "load b 3,5,7,9 on sim0 6G"]


def test_one_that_goes_alone_gathers_nobody() -> None:
    made = make_harness()
    made.add_idle(PLAIN)
    made.submit(replace(PLAIN, alone_in_executor=True), 3)
    assert describe_actions(made.plan_and_apply())[0] == "start 1: 2"


def test_a_limit_bounds_the_jobs_of_batches() -> None:
    made = make_harness()
    made.state.limits.set_handler_limit("b", 3)
    made.submit(PLAIN, 8)
    assert describe_actions(made.plan_and_apply()) == ["load b 1,2,3 on sim0 6G"]
    made.now += WAIT_S
    turn = made.plan_and_apply()
    assert (describe_actions(turn), turn.reasons) == ([], {PLAIN: "concurrency_limit"})
    made.finish(1)
    assert describe_actions(made.plan_and_apply()) == ["start 1: 4,5,6"]


def test_an_executor_that_may_do_few_gets_few() -> None:
    made = make_harness()
    made.max_jobs = 3
    made.add_idle(PLAIN)
    made.submit(PLAIN, 4)
    assert describe_actions(made.plan_and_apply())[0] == "start 1: 2,3"


def test_slots_are_filled_while_others_run() -> None:
    made = make_harness(slots=3, executors=1)
    made.submit(PLAIN, 2)
    assert describe_actions(made.plan_and_apply()) == ["load b 1,2 on sim0 6G"]
    made.state.on_loaded(1, None, made.now)
    made.submit(PLAIN, 3)
    assert describe_actions(made.plan_and_apply()) == ["start 1: 3"]
    assert made.state.on_attempt_ended(1, PLAIN, 2, made.now)
    assert describe_actions(made.plan_and_apply()) == ["start 1: 4"]


def test_one_that_goes_alone_has_all_slots() -> None:
    made = make_harness(slots=3, executors=1)
    made.add_idle(PLAIN)
    made.submit(replace(PLAIN, alone_in_executor=True))
    assert describe_actions(made.plan_and_apply()) == ["start 1: 2"]
    made.submit(PLAIN, 2)
    assert describe_actions(made.plan_and_apply()) == []


def test_slots_count_for_a_limit() -> None:
    made = make_harness(slots=4, executors=1)
    made.state.limits.set_handler_limit("b", 2)
    made.submit(PLAIN, 4)
    assert describe_actions(made.plan_and_apply()) == ["load b 1,2 on sim0 6G"]
    made.state.on_loaded(1, None, made.now)
    assert describe_actions(made.plan_and_apply()) == []


def test_what_it_takes_is_reckoned_by_runs() -> None:
    made = make_harness()
    made.submit(replace(PLAIN, limit_s=10.0), 4)
    (load,) = plan(made.state, made.now).actions
    made.plan_and_apply()
    assert BatchSizing().run_count({}) == 0
    assert made.state.time_estimates.remaining_s(made.state.executors[1], made.now, 7.0) == 7.0
    assert load.outlook.expected_end in (10.0, float("inf"))  # type: ignore[union-attr]


def test_a_wish_gathers_nobody() -> None:
    wish = replace(PLAIN, priority=-1)
    made = make_batch_sizing()
    assert (made.batch_max(wish), made.jobs_per_run(wish)) == (0, 1)
    made.set_handler("b", "1", None, slots=4)
    assert made.slot_count(wish) == 1
