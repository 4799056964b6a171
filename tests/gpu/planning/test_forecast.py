"""Which waiting job should start when, from what was learned."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpu.devices.device import Device, sim
from gpu.job_class import JobClass
from gpu.planning.forecast import SIMULATED_MAX, Forecast, JobForecast, forecast
from tests.gpu.planner_harness import G, PlannerHarness, make_class

A, B, BUSY = make_class("a"), make_class("b"), make_class("busy", 20 * G)


def learned(*devices: Device, **run_s: float) -> PlannerHarness:
    """A scheduler that has seen runs of these handlers, each of them once and after a load of a second."""
    harness = PlannerHarness(*devices)
    for handler, seconds in run_s.items():
        harness.state.record_run(make_class(handler), None, seconds)
        harness.state.estimator.record_load(make_class(handler).key, None, 1.0)
    return harness


def forecasts(harness: PlannerHarness, *job_numbers: int) -> list[JobForecast]:
    made = forecast(harness.state, harness.now)
    return [made.by_number[job_number] for job_number in job_numbers]


def etas(harness: PlannerHarness, job_class: JobClass, count: int = 1) -> list[float | None]:
    numbers = harness.submit(job_class, count)
    return [each.eta_s for each in forecasts(harness, *numbers)]


def test_a_job_starts_when_a_run_should_have_freed_its_memory() -> None:
    harness = learned(busy=10.0, a=4.0)
    harness.add_running(BUSY)
    # A second of the run has passed. Four of them fit at once, the fifth follows a load and a run.
    assert etas(harness, A, 5) == [9.0] * 4 + [14.0]


def test_a_warm_executor_needs_no_load() -> None:
    harness = learned(sim(0, 8 * G), a=4.0)
    harness.add_running(A)
    assert etas(harness, A, 2) == [3.0, 7.0]


@pytest.mark.parametrize("limit_s", [720.0, float("inf")])
def test_without_an_ended_run_the_start_is_unknown_whatever_the_timeout(limit_s: float) -> None:
    harness = PlannerHarness()
    harness.add_running(replace(BUSY, limit_s=limit_s))
    assert etas(harness, A, 2) == [None, None]


def test_one_ended_run_is_enough_though_its_timeout_was_longer() -> None:
    harness = PlannerHarness()
    limited = replace(BUSY, limit_s=720.0)
    harness.state.record_run(limited, None, 6.0)
    harness.add_running(limited)
    assert etas(harness, A) == [5.0]


def test_a_first_load_of_unknown_duration_makes_the_start_unknown() -> None:
    harness = PlannerHarness()
    harness.state.record_run(BUSY, None, 6.0)
    harness.submit(BUSY)
    harness.plan_and_apply()
    assert etas(harness, A) == [None]


def test_jobs_behind_one_of_unknown_duration_start_at_an_unknown_time() -> None:
    harness = learned(sim(0, 8 * G), busy=10.0)
    harness.add_running(make_class("busy"))
    first, second = harness.submit(A, 2)
    assert forecasts(harness, first, second) == [JobForecast(1, 9.0), JobForecast(2, None)]


def test_positions_follow_the_order_of_the_plan_within_a_pool() -> None:
    harness = learned(a=1.0)
    harness.submit(make_class("f", 0, gpus=0, priority=99))
    low, high, late = (
        *harness.submit(make_class("low", priority=10)),
        *harness.submit(make_class("high", priority=90)),
        *harness.submit(make_class("high", priority=90)),
    )
    assert [each.position for each in forecasts(harness, low, high, late)] == [3, 1, 2]


def test_jobs_of_a_paused_queue_are_ahead_of_nobody() -> None:
    harness = learned(a=1.0)
    harness.submit(make_class("p", queue="paused"), 3)
    harness.state.backlog.pause_queue("paused", True)
    (job_number,) = harness.submit(A)
    made = forecast(harness.state, harness.now)
    assert made.by_number == {job_number: JobForecast(1, 0.0)}


def test_tenants_take_turns() -> None:
    harness = learned(sim(0, 8 * G), a=5.0)
    harness.add_running(make_class("a"))
    many = harness.submit(replace(A, tenant="many"), 3)
    # The starts of one class count against the tenant's other class too.
    many += harness.submit(replace(B, tenant="many"))
    (one,) = harness.submit(replace(A, tenant="one"))
    assert forecasts(harness, one)[0].position <= 2
    assert [each.position for each in forecasts(harness, *many)][-1] == 5


def test_a_handler_at_its_limit_waits_for_its_own_runs_and_holds_nobody_up() -> None:
    harness = learned(sim(0, 48 * G), a=8.0, b=3.0)
    harness.state.limits.set_handler_limit("a", 2)
    harness.add_running(A)
    first, second, third = harness.submit(A, 3)
    (other,) = harness.submit(B)
    assert forecasts(harness, first, second, third, other) == [
        JobForecast(1, 0.0),
        JobForecast(2, 7.0),
        JobForecast(3, 9.0),
        JobForecast(2, 0.0),
    ]


def test_a_limit_of_nothing_leaves_the_start_unknown() -> None:
    harness = learned(a=8.0)
    harness.state.limits.set_handler_limit("a", 0)
    assert etas(harness, A) == [None]


def test_jobs_that_share_a_run_start_together() -> None:
    harness = learned(sim(0, 8 * G), busy=10.0, a=4.0)
    harness.state.batch_sizing.set_handler("a", "1", None, slots=2)
    harness.add_running(make_class("busy"))
    assert etas(harness, A, 3) == [9.0, 9.0, 14.0]


def test_a_gang_waits_for_all_of_its_devices() -> None:
    harness = learned(sim(0, 8 * G), sim(1, 8 * G), slow=20.0, fast=5.0)
    harness.add_running(make_class("slow"))
    harness.add_running(make_class("fast"))
    assert etas(harness, make_class("pair", gpus=2)) == [18.0]
    assert etas(harness, make_class("trio", gpus=3)) == [None]


def test_a_job_that_must_run_alone_waits_for_the_last_run_of_a_device() -> None:
    harness = learned(long=10.0, short=5.0, alone=2.0)
    harness.add_running(make_class("long"))
    harness.add_running(make_class("short"))
    (alone,) = harness.submit(replace(make_class("alone"), alone_on_device=True))
    (after,) = harness.submit(make_class("short", priority=10))
    # The load of a second and the run of the one that runs alone come first.
    assert [each.eta_s for each in forecasts(harness, alone, after)] == [8.0, 11.0]


def test_nothing_starts_beside_a_job_whose_need_is_being_learned() -> None:
    harness = learned(new=10.0)
    harness.add_running(make_class("new", None))
    assert etas(harness, A) == [9.0]


@pytest.mark.parametrize(
    ("job_class", "eta_s"),
    [(A, 3.0), (make_class("a", 9 * G), None), (make_class("b", 1 * G), 0.0), (B, None)],
    ids=["own model", "own model, too large", "beside it", "too large beside it"],
)
def test_a_pinned_executor_frees_its_memory_for_its_own_model_only(
    job_class: JobClass, eta_s: float | None
) -> None:
    harness = learned(sim(0, 8 * G), a=4.0, b=4.0)
    harness.keep_alive_s["a"] = -1
    harness.add_running(A)
    assert etas(harness, job_class) == [eta_s]


def test_a_job_that_would_fit_if_the_pinned_one_were_smaller_is_unknown() -> None:
    harness = learned(sim(0, 24 * G), a=4.0, b=4.0)
    harness.keep_alive_s["a"] = -1
    harness.add_running(A)
    (job_number,) = harness.submit(make_class("b", 18 * G))
    (behind,) = harness.submit(make_class("c", 16 * G, priority=10))
    assert [each.eta_s for each in forecasts(harness, job_number, behind)] == [0.0, 5.0]


def test_an_idle_executor_is_warm_for_its_model_and_evicted_for_others() -> None:
    harness = learned(sim(0, 8 * G), a=4.0, b=4.0)
    harness.add_idle(A)
    assert etas(harness, A, 2) == [0.0, 4.0], "neither of them loads"
    harness = learned(sim(0, 8 * G), a=4.0, b=4.0)
    harness.add_idle(A)
    assert etas(harness, B, 2) == [0.0, 5.0], "the first one loads"


def test_a_device_out_of_service_is_left_out() -> None:
    harness = learned(a=4.0)
    harness.state.set_device_open("sim0", False)
    assert etas(harness, A) == [None]


def test_jobs_behind_the_simulated_ones_start_at_their_rate() -> None:
    harness = learned(sim(0, 8 * G), a=2.0)
    harness.add_running(A)
    harness.submit(A, SIMULATED_MAX + 10)
    made = forecast(harness.state, harness.now)
    assert len(made.by_number) == SIMULATED_MAX
    last = made.last_by_pool[True]
    assert last == JobForecast(SIMULATED_MAX, 1.0 + 2 * (SIMULATED_MAX - 1))
    assert last.eta_s is not None
    assert made.extrapolate(True, 2 * SIMULATED_MAX) == JobForecast(2 * SIMULATED_MAX, 2 * last.eta_s)
    assert made.extrapolate(True, 3).position == SIMULATED_MAX + 1, "it is behind them"
    assert made.extrapolate(False, 4) == JobForecast(4, None), "nothing of that pool was simulated"


def test_a_rate_needs_a_start_that_is_known() -> None:
    made = Forecast()
    made.add(True, 1, JobForecast(1, None))
    assert made.extrapolate(True, 2) == JobForecast(2, None)
    made.add(True, 2, JobForecast(1, 3.0))
    assert made.last_by_pool[True].eta_s == 3.0
