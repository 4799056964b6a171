"""What nobody foresaw goes wrong in one place, and the coordinator goes on."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.coordinator.processes.local_process import LocalProcess
from runner.coordinator.processes.worker_connection import WorkerConnection
from runner.coordinator.processes.worker_pool import WorkerHandle, WorkerPool
from runner.coordinator.worker_events.message_handler import WorkerMessageHandler
from runner.processes.child import Child, ProbeConfig, WorkerConfig
from runner.protocol.worker import (
    AttemptEnded,
    AttemptRequest,
    ExecutorUsage,
    Hello,
    NumberedFrame,
    encode,
    to_worker_decoder,
)
from tests.runner.coordinator.lifecycle_harness import CPU, LifecycleHarness, make_submission, run


class Nobody:
    """Listens to a fleet."""

    def on_worker_connected(self, worker: WorkerHandle, hello: Hello) -> None: ...
    def on_worker_reconnected(self, worker: WorkerHandle, hello: Hello) -> None: ...
    def on_messages(self, worker: WorkerHandle, messages: list[bytes]) -> None: ...
    def on_worker_hung(self, worker: WorkerHandle) -> None: ...
    def on_worker_stuck(self, worker: WorkerHandle) -> None: ...
    def on_worker_lost(self, worker: WorkerHandle, why: str) -> None: ...


class SingleWorkerPool(WorkerPool):
    """A fleet of one worker that is never spoken to."""

    def __init__(self, worker: WorkerHandle) -> None:
        def worker_config(*_: object) -> WorkerConfig:
            raise AssertionError

        def probe_config(*_: object) -> ProbeConfig:
            raise AssertionError

        super().__init__(
            runtime=Path("/nowhere"),
            epoch=1,
            marker="r",
            worker_config=worker_config,
            probe_config=probe_config,
            listener=Nobody(),
        )
        self.worker = worker
        self.misses = 0

    def worker_of(self, device_id: str) -> WorkerHandle | None:
        if self.misses:
            self.misses -= 1
            raise KeyError(device_id)
        return self.worker


@pytest.fixture
def worker() -> Iterator[WorkerHandle]:
    """A process that does nothing."""
    process = subprocess.Popen(["sleep", "60"])
    ours, theirs = socket.socketpair()
    theirs.close()
    child = Child("worker", process, ours)
    yield WorkerHandle("worker", CPU, WorkerConnection("w", "n"), LocalProcess(child, started_mono=0.0))
    process.kill()
    process.wait()
    child.close()


class FailingReader(JobReader):
    """Reads `1` for every input, after a number of failures."""

    def __init__(self, harness: LifecycleHarness, fails: int) -> None:
        super().__init__(harness.access, harness.journal)
        self.failures_left = fails

    async def load_inputs(self, numbers: Sequence[int]) -> Mapping[int, bytes]:
        self.failures_left -= 1
        if self.failures_left >= 0:
            raise OSError("the disk is gone")
        return dict.fromkeys(numbers, b"1")


def dispatch(harness: LifecycleHarness, fleet: WorkerPool, *, fails: int = 0) -> Dispatcher:
    made = Dispatcher(
        lifecycle=harness.lifecycle,
        queue_manager=harness.queue_manager,
        scheduler_state=harness.scheduler_state,
        worker_pool=fleet,
        devices={"cpu": CPU},
        timers=harness.timers,
        plan_trigger=harness.plan_trigger,
        job_reader=FailingReader(harness, fails),
        caps=harness.build_memory_monitor(),
    )
    made.is_paused = False
    return made


async def until_runs(harness: LifecycleHarness, live: LiveJob) -> None:
    while live.phase not in ("starting", "running"):
        await asyncio.sleep(0.005)


def test_a_plan_that_cannot_be_carried_out_is_tried_again(worker: WorkerHandle) -> None:
    async def body(harness: LifecycleHarness) -> None:
        fleet = SingleWorkerPool(worker)
        fleet.misses = 1
        live = harness.lifecycle.submit(make_submission())
        dispatch(harness, fleet)
        harness.plan_trigger.wake()
        await until_runs(harness, live)
        assert fleet.misses == 0

    run(body)


def test_inputs_that_cannot_be_read_are_read_later(worker: WorkerHandle) -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission())
        live.drop_input()
        dispatch(harness, SingleWorkerPool(worker), fails=1)
        harness.plan_trigger.wake()
        await until_runs(harness, live)
        assert live.input == b"1"

    run(body)


class MessageRecordingPool(SingleWorkerPool):
    """A fleet that keeps what its worker was told."""

    def __init__(self, worker: WorkerHandle) -> None:
        super().__init__(worker)
        self.told: list[str] = []

    def post(self, worker: WorkerHandle, message: bytes) -> None:
        self.told.append(type(to_worker_decoder.decode(message)).__name__)


def test_what_is_handed_over_late_is_called_back_from_behind_a_long_run(worker: WorkerHandle) -> None:
    async def body(harness: LifecycleHarness) -> None:
        fleet = MessageRecordingPool(worker)
        made = dispatch(harness, fleet)
        harness.scheduler_state.residency.set_max_executors("cpu", 1)
        harness.scheduler_state.limits.set_stage_depth("h", "v1", 4)
        first = harness.lifecycle.submit(make_submission())
        harness.plan_trigger.wake()
        await until_runs(harness, first)
        assert first.executor is not None
        made.executors[first.executor].mark_loaded()
        harness.scheduler_state.on_loaded(first.executor, None, 1000.0)
        second = harness.lifecycle.submit(make_submission(2))
        second.drop_input()
        harness.plan_trigger.wake()
        while second.phase != "assigned":
            await asyncio.sleep(0)
        # Its input is being read when the first one turns out to be long.
        harness.scheduler_state.mark_long_running(first.executor, first.job.number)
        while second.phase == "assigned":
            await asyncio.sleep(0)
        assert fleet.told == ["LoadExecutor", "RunAttempts", "RunAttempts", "RecallAttempts"]

    run(body)


def reports(harness: LifecycleHarness, worker: WorkerHandle) -> tuple[WorkerMessageHandler, list[int]]:
    fleet = SingleWorkerPool(worker)
    called: list[int] = []

    def on_call(_: WorkerHandle, call: AttemptRequest) -> None:
        called.append(call.request_id)
        if call.request_id == 1:
            raise ZeroDivisionError

    made = harness.build_message_handler(dispatch(harness, fleet), fleet, on_call=on_call)
    return made, called


def test_a_message_that_fails_does_not_take_its_frame_along(worker: WorkerHandle) -> None:
    async def body(harness: LifecycleHarness) -> None:
        made, called = reports(harness, worker)
        made.handle_frame(worker, [encode(AttemptRequest(n, 1, "job-1", 1, "file", "x")) for n in (1, 2, 3)])
        made.handle_frame(worker, [encode(ExecutorUsage([(7, 1)]))])
        assert called == [1, 2, 3]
        assert worker.process.child.reap() is None

    run(body)


def test_a_worker_whose_news_of_an_attempt_were_lost_is_replaced(worker: WorkerHandle) -> None:
    async def body(harness: LifecycleHarness) -> None:
        made, _ = reports(harness, worker)
        live = harness.lifecycle.submit(make_submission())
        harness.start(live)
        # There is no such executor: taking this in fails.
        news = [encode(NumberedFrame(1)), encode(AttemptEnded("job-1", 1, 1, None, ""))]
        made.handle_frame(worker, news)
        assert worker.process.child.process.wait(5) == -signal.SIGKILL
        assert worker.connection.last_applied == 1

    run(body)


def test_text_that_is_not_utf8_is_counted_and_the_rest_is_taken_in(worker: WorkerHandle) -> None:
    async def body(harness: LifecycleHarness) -> None:
        made, called = reports(harness, worker)
        news = [encode(AttemptRequest(n, 1, "job-1", 1, "file", "x")) for n in (2, 3)]
        made.handle_frame(worker, [news[0].replace(b"job-1", b"job-\xff"), news[1]])
        assert (called, harness.lifecycle.statistics.bad_frame_count) == ([3], 1)
        assert worker.process.child.reap() is None

    run(body)


def test_a_worker_whose_numbered_news_are_no_message_is_replaced(worker: WorkerHandle) -> None:
    async def body(harness: LifecycleHarness) -> None:
        made, called = reports(harness, worker)
        news = [encode(NumberedFrame(5)), b"\xc1", encode(AttemptRequest(3, 1, "job-1", 1, "file", "x"))]
        made.handle_frame(worker, news)
        assert worker.process.child.process.wait(5) == -signal.SIGKILL
        assert (called, worker.connection.last_applied, harness.lifecycle.statistics.bad_frame_count) == (
            [3],
            6,
            1,
        )

    run(body)
