"""A handler is another now: what its executors are told, and where the attempts go that they were handed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.coordinator.processes.worker_pool import WorkerHandle
from runner.handlers.spec import BatchOptions, HandlerOptions
from runner.jobs.job import Submission
from runner.protocol.framing import BATCH_INPUT_BYTES, FRAME_BYTES
from runner.protocol.worker import (
    AttemptEnded,
    AttemptsRecalled,
    ExecutorGone,
    ExecutorLoaded,
    KillExecutor,
    LoadExecutor,
    RecallAttempts,
    RunAttempts,
    UnloadExecutor,
    encode,
    to_worker_decoder,
)
from tests.runner.coordinator import test_error_boundaries
from tests.runner.coordinator.lifecycle_harness import CPU, LifecycleHarness, make_submission, run, spec
from tests.runner.coordinator.test_error_boundaries import SingleWorkerPool

worker = test_error_boundaries.worker
NEWER = replace(spec(), version="v2")


class RecordingPool(SingleWorkerPool):
    """A fleet of one worker; keeps what that was told."""

    def __init__(self, worker: WorkerHandle) -> None:
        super().__init__(worker)
        self.orders: list[Any] = []

    def post(self, worker: WorkerHandle, message: bytes) -> None:
        self.orders.append(to_worker_decoder.decode(message))

    def flush(self) -> None:
        return

    def start_cpu_workers(self, devices: object) -> None:
        return

    def take_commands(self) -> list[Any]:
        """What was told since the last time."""
        orders, self.orders = self.orders, []
        return orders


class HeldReader(JobReader):
    """Reads `1` for every input, once `inputs` is done."""

    def __init__(self, harness: LifecycleHarness, inputs: asyncio.Future[None]) -> None:
        super().__init__(harness.access, harness.journal)
        self.inputs = inputs

    async def load_inputs(self, numbers: Sequence[int]) -> Mapping[int, bytes]:
        await self.inputs
        return dict.fromkeys(numbers, b"1")


class DispatchScenario:
    """One executor slot, jobs for `h`, and a worker that the test plays."""

    def __init__(self, harness: LifecycleHarness, worker: WorkerHandle) -> None:
        self.harness, self.worker = harness, worker
        self.fleet = RecordingPool(worker)
        self.inputs: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        harness.scheduler_state.residency.set_max_executors("cpu", 1)
        for version in ("v1", "v2"):
            harness.scheduler_state.limits.set_stage_depth("h", version, 4)
        self.dispatch = Dispatcher(
            lifecycle=harness.lifecycle,
            queue_manager=harness.queue_manager,
            scheduler_state=harness.scheduler_state,
            worker_pool=self.fleet,
            devices={"cpu": CPU},
            timers=harness.timers,
            plan_trigger=harness.plan_trigger,
            job_reader=HeldReader(harness, self.inputs),
            caps=harness.build_memory_monitor(),
        )
        self.message_handler = harness.build_message_handler(self.dispatch, self.fleet)
        self.dispatch.is_paused = False

    async def turn(self) -> list[Any]:
        """What the worker is told in the next turn."""
        self.harness.plan_trigger.wake()
        await asyncio.sleep(0)
        # A later attempt is sent once its start is stored.
        await self.harness.journal.flush()
        await asyncio.sleep(0)
        return self.fleet.take_commands()

    async def says(self, *news: Any) -> list[Any]:
        """What the worker is told after it has said this."""
        self.message_handler.handle_frame(self.worker, [encode(one) for one in news])
        return await self.turn()

    def submit(self, *numbers: int) -> list[LiveJob]:
        return [self.harness.lifecycle.submit(make_submission(n)) for n in numbers]

    async def busy(self, *numbers: int) -> list[LiveJob]:
        """Jobs at a loaded executor: the first runs, the others are staged."""
        lives = self.submit(numbers[0])
        load, first = await self.turn()
        assert isinstance(load, LoadExecutor) and isinstance(first, RunAttempts)
        lives += self.submit(*numbers[1:])
        orders = await self.says(ExecutorLoaded(1, 0.1))
        assert sum(len(order.attempts) for order in orders) == len(numbers) - 1
        return lives

    def reload(self, newer: Any = NEWER, *, replaced: bool = True) -> None:
        self.harness.queue_manager.set_handlers({"h": newer})
        self.dispatch.control.retire_handler("h", is_replaced=replaced)


def play(worker: WorkerHandle, body: Callable[[DispatchScenario], Awaitable[None]]) -> None:
    async def whole(harness: LifecycleHarness) -> None:
        await body(DispatchScenario(harness, worker))

    run(whole)


def done(live: LiveJob) -> AttemptEnded:
    return AttemptEnded(
        live.job.id, live.attempt_in_flight or live.job.attempt, live.job.applied_seq + 1, None, output=b"1"
    )


def jobs(orders: list[Any]) -> list[str]:
    return [
        attempt.job_id for order in orders if isinstance(order, RunAttempts) for attempt in order.attempts
    ]


def test_what_runs_ends_what_is_staged_comes_back_and_goes_first_to_the_new_one(worker: WorkerHandle) -> None:
    async def body(scenario: DispatchScenario) -> None:
        running, second, third = await scenario.busy(1, 2, 3)
        (later,) = scenario.submit(4)
        scenario.harness.scheduler_state.limits.set_stage_depth("h", "v1", 1)
        scenario.reload()
        assert await scenario.turn() == [RecallAttempts(1)]
        assert await scenario.says(AttemptsRecalled(1, [("job-2", 1), ("job-3", 1)])) == []
        assert (second.phase, third.phase, later.phase) == ("waiting", "waiting", "waiting")
        orders = await scenario.says(done(running))
        assert running.job.state == "succeeded"
        assert UnloadExecutor(1) in orders
        (load,) = [order for order in orders if isinstance(order, LoadExecutor)]
        assert (load.executor, load.handler.version) == (2, "v2")
        orders += await scenario.says(ExecutorGone(1, "unloaded", ""), ExecutorLoaded(2, 0.1))
        assert jobs(orders) == ["job-2", "job-3", "job-4"]
        assert [live.job.attempt for live in (second, third)] == [1, 0]

    play(worker, body)


def test_an_idle_one_goes_at_once(worker: WorkerHandle) -> None:
    async def body(scenario: DispatchScenario) -> None:
        (live,) = await scenario.busy(1)
        assert await scenario.says(done(live)) == []
        scenario.reload()
        assert await scenario.turn() == [UnloadExecutor(1)]
        assert await scenario.turn() == []

    play(worker, body)


def test_one_that_loads_is_killed_where_there_is_another_version(worker: WorkerHandle) -> None:
    async def body(scenario: DispatchScenario) -> None:
        (live,) = scenario.submit(1)
        assert len(await scenario.turn()) == 2
        scenario.reload()
        (kill,) = await scenario.turn()
        assert isinstance(kill, KillExecutor) and (kill.executor, kill.code) == (1, "interrupted")
        orders = await scenario.says(
            AttemptEnded("job-1", 1, 1, "interrupted", kill.message), ExecutorGone(1, "interrupted", "")
        )
        assert jobs(orders) == ["job-1"] and live.job.failures == 0
        assert [order.handler.version for order in orders if isinstance(order, LoadExecutor)] == ["v2"]

    play(worker, body)


def test_one_that_loads_ends_its_first_job_where_there_is_none(worker: WorkerHandle) -> None:
    async def body(scenario: DispatchScenario) -> None:
        (live,) = scenario.submit(1)
        await scenario.turn()
        scenario.reload(replace(NEWER, state="broken"), replaced=False)
        assert await scenario.turn() == []
        assert await scenario.says(ExecutorLoaded(1, 0.1)) == []
        assert await scenario.says(done(live)) == [UnloadExecutor(1)]
        assert live.job.state == "succeeded"

    play(worker, body)


def test_what_was_promised_to_it_and_not_sent_yet_goes_elsewhere(worker: WorkerHandle) -> None:
    async def body(scenario: DispatchScenario) -> None:
        (running,) = await scenario.busy(1)
        waiting = scenario.submit(2, 3)
        for live in waiting:
            live.drop_input()
        assert await scenario.turn() == []
        assert {live.phase for live in waiting} == {"assigned"}
        scenario.reload()
        assert await scenario.turn() == [RecallAttempts(1)]
        scenario.inputs.set_result(None)
        await asyncio.sleep(0.01)
        assert jobs(await scenario.turn()) == [] and {live.phase for live in waiting} == {"waiting"}
        orders = await scenario.says(done(running)) + await scenario.says(
            ExecutorGone(1, "unloaded", ""), ExecutorLoaded(2, 0.1)
        )
        assert jobs(orders) == ["job-2", "job-3"]

    play(worker, body)


def test_one_that_dies_meanwhile_is_not_waited_for(worker: WorkerHandle) -> None:
    async def body(scenario: DispatchScenario) -> None:
        running, staged = await scenario.busy(1, 2)
        scenario.reload()
        await scenario.turn()
        died = AttemptEnded(
            running.job.id,
            1,
            1,
            "worker_crashed",
            "",
            executor_died=True,
            retryable=False,
            executor_closing=True,
        )
        orders = await scenario.says(died, ExecutorGone(1, "worker_crashed", "", [("job-2", 1)]))
        assert jobs(orders) == ["job-2"] and staged.job.attempt == 1
        assert UnloadExecutor(1) not in orders

    play(worker, body)


def test_what_a_batch_has_no_bytes_for_forms_the_next_batch(worker: WorkerHandle) -> None:
    async def body(scenario: DispatchScenario) -> None:
        options = HandlerOptions(batch=BatchOptions(max=8, wait_s=0.0))
        scenario.reload(replace(NEWER, options=options))
        lives = scenario.submit(1, 2, 3)
        for live in lives:
            live.job.input_bytes = BATCH_INPUT_BYTES // 2
        assert jobs(await scenario.turn()) == ["job-1", "job-2"]
        assert lives[2].executor is None or lives[2].phase == "assigned"
        orders = await scenario.says(ExecutorLoaded(1, 0.1), done(lives[0]), done(lives[1]))
        assert jobs(orders) == ["job-3"] and lives[2].attempt_in_flight == 1

    play(worker, body)


def test_staged_attempts_travel_in_messages_that_fit_into_a_frame(worker: WorkerHandle) -> None:
    async def body(scenario: DispatchScenario) -> None:
        await scenario.busy(1)
        for number in (2, 3, 4):
            scenario.harness.lifecycle.submit(Submission(f"job-{number}", "h", bytes(FRAME_BYTES // 2)))
        orders = await scenario.turn()
        assert [jobs([order]) for order in orders] == [["job-2"], ["job-3"], ["job-4"]]

    play(worker, body)


def test_a_recall_reported_twice_leaves_the_next_executor_its_attempt(worker: WorkerHandle) -> None:
    async def body(scenario: DispatchScenario) -> None:
        first, second = await scenario.busy(1, 2)
        scenario.harness.scheduler_state.mark_long_running(1, first.job.number)
        scenario.harness.scheduler_state.residency.set_max_executors("cpu", 2)
        recalled = AttemptsRecalled(1, [("job-2", 1)])
        assert jobs(await scenario.says(recalled)) == ["job-2"]
        assert (second.executor, second.attempt_in_flight) == (2, 1)
        # As after a reconnect: the worker's own report came first, and the comparison finds the same attempt.
        assert await scenario.says(recalled) == []
        assert second.executor == 2 and list(scenario.dispatch.executors[2].attempts.values()) == [second]
        assert scenario.dispatch.executors[1].sent_count == 1

    play(worker, body)
