"""How queued jobs wait, in figures and in a line."""

from __future__ import annotations

import itertools

from gpu.planning.actions import Plan
from runner.coordinator.jobs.explanations import WaitStatus
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.observability.wait_statuses import WaitStatuses
from runner.coordinator.queue.spill import QueueBounds
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, make_submission, run


def status_of(harness: LifecycleHarness, live: LiveJob) -> WaitStatus:
    found = harness.wait_statuses.status_of(live.job, live)
    assert found is not None
    return found


def test_jobs_have_their_positions_and_unknown_starts_stay_unknown() -> None:
    async def body(harness: LifecycleHarness) -> None:
        # The CPU device has two places.
        jobs = [harness.lifecycle.submit(make_submission(number)) for number in range(1, 4)]
        found = [status_of(harness, live) for live in jobs]
        assert [(each.position, each.eta_s) for each in found] == [(1, 0.0), (2, 0.0), (3, None)]
        assert found[2].message == "ready to start, 3rd"
        assert jobs[2].job_class is not None
        plan = Plan([], {jobs[2].job_class: "waiting_for_device"})
        harness.queue_manager.reasons.record_plan(plan)
        assert status_of(harness, jobs[2]).message == "waiting for a device, 3rd"

    run(body)


def test_a_start_is_counted_down_until_the_next_forecast() -> None:
    async def body(harness: LifecycleHarness) -> None:
        moments = itertools.count(0.0, 0.01)
        # A forecast that took 10 ms is used for half a second, which is 50 moments.
        harness.wait_statuses = WaitStatuses(
            queue_manager=harness.queue_manager,
            scheduler_state=harness.scheduler_state,
            clock=harness.clock,
            monotonic=lambda: next(moments),
        )
        first, *_, third = [harness.lifecycle.submit(make_submission(number)) for number in range(1, 4)]
        assert first.job_class is not None
        harness.scheduler_state.record_run(first.job_class, None, 8.0)
        assert status_of(harness, third).eta_s == 8.0
        harness.clock.at += 3.0
        assert status_of(harness, third).eta_s == 5.0
        for _ in range(50):
            found = status_of(harness, third)
        assert found.eta_s == 8.0, "the two before it have not started meanwhile"

    run(body)


def test_nothing_is_planned_for_jobs_of_paused_queues_and_unknown_handlers() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission())
        harness.scheduler_state.backlog.pause_queue("default", True)
        assert status_of(harness, live) == WaitStatus("paused", None, None, "the queue is paused")
        harness.scheduler_state.backlog.pause_queue("default", False)
        harness.queue_manager.set_handlers({})
        found = status_of(harness, live)
        assert (found.reason, found.position, found.eta_s) == ("waiting_for_handler", None, None)

    run(body)


def test_a_delayed_job_waits_for_its_time() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission(delay_s=30.0, retries=1))
        found = status_of(harness, live)
        assert (found.reason, found.position, found.eta_s) == ("scheduled", None, 30.0)
        assert found.message == "scheduled to start at 1970-01-01T00:17:10.000Z"
        harness.start(live)
        assert harness.wait_statuses.status_of(live.job, live) is None, "it runs"
        harness.end(live, "timeout", retry_at=harness.clock.now() + 20.0)
        found = status_of(harness, live)
        assert (found.reason, found.eta_s) == ("retry_backoff", 20.0)
        assert found.message == "attempt 1 failed: why; retry in about 20 s"

    run(body)


def test_a_job_that_an_executor_has_is_next() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission())
        harness.stage(live)
        found = status_of(harness, live)
        assert (found.position, found.eta_s) == (1, None)

    run(body)


def test_jobs_behind_the_window_are_placed_by_counting() -> None:
    async def body(harness: LifecycleHarness) -> None:
        jobs = [harness.lifecycle.submit(make_submission(number)) for number in range(1, 7)]
        assert jobs[-1].phase == "behind"
        assert status_of(harness, jobs[-1]).position == 6
        # A job that is not in memory is found by its row.
        found = harness.wait_statuses.status_of(jobs[-1].job, None)
        assert found is not None and found.position == 6

    run(body, bounds=QueueBounds(window_jobs=2, small_window_jobs=2))
