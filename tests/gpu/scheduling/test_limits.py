from __future__ import annotations

import math

import pytest

from gpu.estimates.batch_sizing import BatchSizing, BatchTerms
from gpu.planning.explain import explain
from gpu.scheduling.limits import (
    NOTHING_RUNS,
    STAGE_MAX,
    ConcurrencyLimits,
    PlannedConcurrency,
    RunningCount,
    RunningCounts,
)
from tests.gpu.planner_harness import PlannerHarness, make_class

A = make_class("a")


def make_limits(limit: int | None, *, executors: int = 0, jobs: int = 0, slots: int = 1) -> ConcurrencyLimits:
    sizing = BatchSizing()
    sizing.set_handler("a", "1", None, slots)
    limits = ConcurrencyLimits(sizing)
    limits.set_handler_limit("a", limit)
    limits.running.add("a", executors=executors, jobs=jobs)
    return limits


def test_counts_are_kept_by_key() -> None:
    counts = RunningCounts()
    counts.add("a", executors=1, jobs=3)
    counts.add("b", jobs=1)
    counts.add("a", jobs=-1)
    assert (counts.get("a"), counts.get("b")) == (RunningCount(1, 2), RunningCount(0, 1))
    assert counts.get("c") == NOTHING_RUNS


def test_a_key_of_which_nothing_runs_takes_no_memory() -> None:
    counts = RunningCounts()
    counts.add("a", jobs=0)
    counts.add("b", executors=1)
    counts.add("b", executors=-1)
    assert counts._counts == {}


@pytest.mark.parametrize(
    ("limit", "executors", "jobs", "slots", "remaining"),
    [
        (None, 5, 9, 1, math.inf),
        # Staged jobs do not run: executors count.
        (3, 2, 9, 1, 1),
        # Slots run side by side: jobs count.
        (3, 1, 2, 4, 1),
        (3, 1, 3, 4, 0),
        # The limit was lowered while more ran.
        (1, 3, 3, 1, -2),
        (0, 0, 0, 1, 0),
    ],
)
def test_what_may_still_run(
    limit: int | None, executors: int, jobs: int, slots: int, remaining: float
) -> None:
    limits = make_limits(limit, executors=executors, jobs=jobs, slots=slots)
    assert limits.remaining(A) == remaining
    assert limits.is_at_limit(A) is (remaining <= 0)
    assert limits.remaining(make_class("b")) == math.inf


@pytest.mark.parametrize(("slots", "remaining"), [(1, 2), (4, 1)])
def test_a_plan_counts_what_it_adds(slots: int, remaining: int) -> None:
    limits = make_limits(4, executors=1, jobs=1, slots=slots)
    planned = PlannedConcurrency(limits)
    planned.add_executor("a")
    planned.add_jobs("a", 2)
    assert planned.remaining(A) == remaining
    assert not planned.is_at_limit(A)
    planned.add_jobs("a", remaining)
    for _ in range(remaining):
        planned.add_executor("a")
    assert planned.is_at_limit(A)
    # Until the plan is carried out, nothing has changed.
    assert limits.running.get("a") == RunningCount(1, 1)


def test_a_limit_can_be_lifted() -> None:
    limits = make_limits(0)
    assert limits.is_at_limit(A)
    limits.set_handler_limit("a", None)
    limits.set_handler_limit("a", None)
    assert not limits.is_at_limit(A)


@pytest.mark.parametrize(("depth", "kept"), [(-1, 1), (4, 4), (99, STAGE_MAX)])
def test_a_stage_depth_is_kept_within_bounds(depth: int, kept: int) -> None:
    limits = make_limits(None)
    limits.set_stage_depth("a", "1", depth)
    assert limits.stage_depths == {("a", "1"): kept}


def test_an_executor_and_its_jobs_are_counted_to_their_end() -> None:
    harness = PlannerHarness()
    running = harness.state.limits.running
    harness.state.limits.set_stage_depth("a", "1", 4)
    harness.submit(A)
    harness.plan_and_apply()
    assert running.get("a") == RunningCount(1, 1)
    harness.state.on_loaded(1, None, harness.now)
    harness.submit(A, 2)
    harness.plan_and_apply()
    assert running.get("a") == RunningCount(1, 3)
    harness.give_back(1, A, [3])
    harness.state.remove_waiting(A, 3)
    assert running.get("a") == RunningCount(1, 2)
    harness.finish(1)
    assert running.get("a") == NOTHING_RUNS
    harness.submit(A)
    harness.plan_and_apply()
    assert running.get("a") == RunningCount(1, 1)
    harness.state.on_executor_gone(1, harness.now)
    assert running.get("a") == NOTHING_RUNS


def test_a_limit_on_batches_is_explained_as_the_plan_counts_it() -> None:
    harness = PlannerHarness()
    harness.state.batch_sizing.set_handler("a", "1", BatchTerms(4, 0.0))
    harness.state.limits.set_handler_limit("a", 3)
    *_, last = harness.submit(A, 4)
    harness.plan_and_apply()
    assert harness.plan_and_apply().reasons == {A: "concurrency_limit"}
    assert explain(harness.state, A, last)["reason"] == "concurrency_limit"
