"""How long a run is taken to last: by its limit, until some of its like have run."""

from __future__ import annotations

from dataclasses import replace

from gpu.estimates.estimator import ENOUGH_RUNS
from gpu.scheduling.scheduler_state import SchedulerState
from tests.gpu.planner_harness import make_class

HOUR = replace(make_class("a"), limit_s=3600.0)


def test_a_limit_counts_until_enough_of_its_like_have_run() -> None:
    state = SchedulerState()
    assert state.time_estimates.run_s(HOUR) == 3600
    for _ in range(ENOUGH_RUNS - 1):
        state.record_run(HOUR, None, 60.0)
    assert state.time_estimates.run_s(HOUR) == 3600
    state.record_run(HOUR, None, 60.0)
    assert state.time_estimates.run_s(HOUR) == 60
    assert state.time_estimates.run_s(replace(HOUR, limit_s=30.0)) == 30, "of another limit nothing is known"


def test_without_a_limit_the_median_counts() -> None:
    state, job_class = SchedulerState(), make_class("a")
    assert state.time_estimates.run_s(job_class) is None
    for run_s in (1.0, 2.0, 50.0):
        state.record_run(job_class, None, run_s)
    assert state.time_estimates.run_s(job_class) == 2.0
