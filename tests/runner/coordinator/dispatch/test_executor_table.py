"""Executors are found by their device, worker and handler, also while the table changes."""

from __future__ import annotations

from msgspec.structs import replace

from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.dispatch.executor_table import ExecutorTable
from runner.coordinator.processes.worker_connection import WorkerConnection
from runner.coordinator.processes.worker_pool import WorkerHandle
from tests.runner.coordinator import test_error_boundaries
from tests.runner.coordinator.lifecycle_harness import CPU, LifecycleHarness, make_submission, run, spec

worker = test_error_boundaries.worker


def table(worker: WorkerHandle) -> tuple[ExecutorTable, WorkerHandle]:
    """1 and 2 run `h`, 2 on both devices; 3 runs `other` under another worker."""
    second = WorkerHandle("worker", CPU, WorkerConnection("w2", "n"), worker.process)
    other = replace(spec(), name="other")
    executors = ExecutorTable()
    executors[1] = ExecutorHandle(1, worker, spec(), "", ["gpu0"], 0)
    executors[2] = ExecutorHandle(2, worker, spec(), "m", ["gpu0", "gpu1"], 0)
    executors[3] = ExecutorHandle(3, second, other, "", ["gpu1"], 0)
    return executors, second


def numbers(executors: list[ExecutorHandle]) -> list[int]:
    return [each.number for each in executors]


def test_executors_are_found_by_device_worker_and_handler(worker: WorkerHandle) -> None:
    executors, second = table(worker)
    assert numbers(executors.on_device("gpu0")) == [1, 2]
    assert numbers(executors.on_device("gpu1")) == [2, 3]
    assert executors.on_device("gpu2") == []
    assert numbers(executors.on_any_device({"gpu0", "gpu1"})) == [1, 2, 3]
    assert executors.on_any_device(set()) == []
    assert numbers(executors.all()) == [1, 2, 3]
    assert numbers(executors.of_worker(worker)) == [1, 2]
    assert numbers(executors.of_worker(second)) == [3]
    assert numbers(executors.of_handler("h")) == [1, 2]
    assert executors.of_handler("nobody") == []


def test_executors_with_attempts_are_told_apart(worker: WorkerHandle) -> None:
    async def body(harness: LifecycleHarness) -> None:
        executors, _ = table(worker)
        assert executors.with_attempts() == []
        live = harness.lifecycle.submit(make_submission())
        executors[2].assign_attempts([live])
        assert numbers(executors.with_attempts()) == [2]

    run(body)


def test_executors_may_leave_while_a_caller_goes_through_them(worker: WorkerHandle) -> None:
    executors, _ = table(worker)
    for each in executors.on_device("gpu0"):
        del executors[each.number]
    assert list(executors) == [3]
