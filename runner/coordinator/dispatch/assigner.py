"""Effect: assigns attempts to an executor: input read, start durable, then sent to its worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.commands import attempt_spec
from runner.coordinator.dispatch.executor_control import ExecutorControl
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.dispatch.executor_table import ExecutorTable
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.processes.worker_pool import WorkerPool
from runner.coordinator.queue.spill import read_with_retry
from runner.protocol.worker import RunAttempts, encode

#: Reads inputs that are not in memory: job numbers -> JSON texts.
ReadInputs = Callable[[Sequence[int]], Awaitable[Mapping[int, bytes]]]


class Assigner:
    """Attempts on their way from the plan to a worker."""

    def __init__(
        self,
        *,
        line: JobLifecycle,
        view: SchedulerState,
        fleet: WorkerPool,
        executors: ExecutorTable,
        control: ExecutorControl,
        read_inputs: ReadInputs,
        wake: Callable[[], None],
    ) -> None:
        self._line = line
        self._view = view
        self._fleet = fleet
        self._executors = executors
        self._control = control
        self._read_inputs = read_inputs
        #: Asks for a turn of the plan.
        self._wake = wake
        self._tasks: set[asyncio.Task[None]] = set()

    def assign(self, post: ExecutorHandle, lives: list[LiveJob]) -> None:
        """Give these to the executor: at once, or when their input is read and their start durable."""
        for live in lives:
            live.phase = "assigned"
            live.executor = post.number
            live.attempt_in_flight = live.job.attempt + (not live.has_unused_attempt)
            post.attempts[live.job.number] = live
        if any(live.input is None for live in lives):
            task = asyncio.get_running_loop().create_task(self._read_and_send(post, lives))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        self._send_when_durable(post, lives)

    async def _read_and_send(self, post: ExecutorHandle, lives: list[LiveJob]) -> None:
        missing = [live.job.number for live in lives if live.input is None]
        inputs = await read_with_retry(self._read_inputs, missing, "inputs")
        for live in lives:
            if live.input is None:
                # One that the store lacks fails over its input, instead of holding its executor for ever.
                self._line.queue_manager.spill_pool.keep_input(live, inputs.get(live.job.number, b"null"))
        self._send_when_durable(post, lives)
        self._fleet.flush()

    def _send_when_durable(self, post: ExecutorHandle, lives: list[LiveJob]) -> None:
        """A first attempt may go out before its submit is durable; a later start is committed first,
        so that a killer's count survives what it kills."""
        first_attempts, later_attempts = post.split_first_attempts(lives)
        if first_attempts:
            self._send(post, first_attempts)
        if not later_attempts:
            return
        for live in later_attempts:
            if live.attempt_in_flight and live.executor == post.number and not post.is_retired:
                self._start_attempt(post, live)

        def send(_: object) -> None:
            self._send(post, later_attempts)
            self._fleet.flush()

        self._line.journal.call_when_durable(send, is_patient=True)

    def _send(self, post: ExecutorHandle, lives: list[LiveJob]) -> None:
        attempts, unstarted = [], []
        was_idle = post.sent_count == 0
        is_alive = post.number in self._executors
        for live in lives:
            if live.executor != post.number or live.phase == "ended":
                continue
            if not is_alive:
                unstarted.append(live)
            elif live.job.cancel_reason is not None:
                self._end_cancelled(post, live)
            elif post.is_retired:
                self._release_attempt(post, live, done=False)
                unstarted.append(live)
            else:
                self._mark_sent(post, live, was_idle=was_idle)
                attempts.append(attempt_spec(live, post.spec.options))
        # Each goes before all others, so the first one comes last.
        for live in reversed(unstarted):
            self._line.return_unstarted(live)
        if attempts:
            self._fleet.post(post.worker, encode(RunAttempts(post.number, attempts)))
            if self._view.executors[post.number].long_job_number is not None:
                # What runs there was found to take long while these were read or written.
                self._control.recall_staged(post)

    def _mark_sent(self, post: ExecutorHandle, live: LiveJob, *, was_idle: bool) -> None:
        if live.job.attempt < live.attempt_in_flight:
            if post.starts_immediately(was_idle=was_idle):
                self._start_attempt(post, live)
            else:
                live.phase = "staged"
        post.sent_count += 1

    def _start_attempt(self, post: ExecutorHandle, live: LiveJob) -> None:
        self._line.start_attempt(
            live,
            at=self._line.now(),
            worker=post.worker.name,
            devices=post.devices,
            is_loading=not post.is_loaded,
            granted_bytes=post.grant_bytes,
            meter=post.meter,
        )

    def _end_cancelled(self, post: ExecutorHandle, live: LiveJob) -> None:
        """Cancelled before the worker was told of it."""
        self._release_attempt(post, live)
        self._line.cancel_unstarted(live, live.job.cancel_reason or "cancelled")
        self._wake()

    def _release_attempt(self, post: ExecutorHandle, live: LiveJob, *, done: bool = True) -> None:
        """The executor does not hold the attempt any more; its worker was never told of it."""
        post.attempts.pop(live.job.number, None)
        if live.job_class is not None:
            self._view.on_attempt_ended(
                post.number, live.job_class, live.job.number, self._line.now(), has_run=done
            )
