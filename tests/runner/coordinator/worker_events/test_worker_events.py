"""What follows when a worker hangs, survives SIGKILL, or has ended."""

from __future__ import annotations

import asyncio

import pytest

from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.processes.worker_pool import WorkerHandle
from runner.coordinator.worker_events.worker_events import WorkerEvents
from runner.protocol.worker import Hello
from tests.runner.coordinator import test_error_boundaries
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, make_submission, run
from tests.runner.coordinator.test_error_boundaries import SingleWorkerPool, dispatch, until_runs

worker = test_error_boundaries.worker


def connected(harness: LifecycleHarness, worker: WorkerHandle) -> WorkerEvents:
    """The events of one worker, which is connected and whose device takes work."""
    fleet = SingleWorkerPool(worker)
    messages = harness.build_message_handler(dispatch(harness, fleet), fleet)
    events = WorkerEvents()
    events.connect(harness.devices(harness.build_memory_monitor()), messages)
    events.on_worker_connected(worker, Hello(1, "", "n", "worker", "w", 1, 1))
    return events


async def started(harness: LifecycleHarness, timeout_s: float | None = None) -> LiveJob:
    live = harness.lifecycle.submit(make_submission(timeout_s=timeout_s))
    harness.plan_trigger.wake()
    await until_runs(harness, live)
    harness.lifecycle.mark_running(live, harness.clock.now())
    return live


def is_open(harness: LifecycleHarness) -> bool:
    return harness.scheduler_state.residency.slots["cpu"].is_open


def faults(harness: LifecycleHarness) -> dict[str, str]:
    return harness.lifecycle.statistics.faults_by_device["cpu"]


def test_a_worker_that_hangs_closes_its_device_until_its_exit(worker: WorkerHandle) -> None:
    async def body(harness: LifecycleHarness) -> None:
        events = connected(harness, worker)
        assert is_open(harness) and not faults(harness)
        events.on_worker_hung(worker)
        assert not is_open(harness) and faults(harness) == {"worker": "its worker w hangs and is replaced"}
        events.on_worker_lost(worker, "signal SIGKILL")
        assert not is_open(harness) and not faults(harness)

    run(body)


def test_a_worker_that_survives_sigkill_closes_its_device_until_its_exit(worker: WorkerHandle) -> None:
    async def body(harness: LifecycleHarness) -> None:
        events = connected(harness, worker)
        live = await started(harness)
        events.on_worker_hung(worker)
        events.on_worker_stuck(worker)
        assert faults(harness)["worker"].startswith("stuck_process: ")
        harness.plan_trigger.wake()
        for _ in range(5):
            await asyncio.sleep(0)
        assert (live.phase, live.job.attempt, live.job.failures) == ("waiting", 1, 0)
        assert (error := live.job.attempts[0].error) is not None and error.code == "interrupted"
        events.on_worker_lost(worker, "signal SIGKILL")
        assert not faults(harness)
        events.on_worker_connected(worker, Hello(1, "", "n", "worker", "w", 1, 1))
        await until_runs(harness, live)
        assert live.attempt_in_flight == 2

    run(body)


@pytest.mark.parametrize(("passed_s", "code"), [(3.0, "timeout"), (1.0, "interrupted")])
def test_an_attempt_whose_time_was_over_ends_as_timeout(
    worker: WorkerHandle, passed_s: float, code: str
) -> None:
    async def body(harness: LifecycleHarness) -> None:
        events = connected(harness, worker)
        live = await started(harness, timeout_s=2.0)
        harness.clock.at += passed_s
        events.on_worker_hung(worker)
        events.on_worker_lost(worker, "signal SIGKILL")
        assert (error := live.job.attempts[0].error) is not None and error.code == code

    run(body)
