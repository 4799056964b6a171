"""Effect: decodes the messages of workers and applies them to jobs, executors and the ledger.

A numbered message is applied once: its number is compared with the last one applied, and it is acknowledged
after the commit that holds its changes. Until then its worker keeps it and sends it again after a reconnect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.processes.worker_pool import WorkerHandle, WorkerPool
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.coordinator.worker_events.attempt_message_handler import AttemptMessageHandler
from runner.coordinator.worker_events.executor_message_handler import ExecutorMessageHandler
from runner.coordinator.worker_events.reconnects import Reconnects
from runner.protocol.worker import (
    UNDECODABLE,
    AttemptEnded,
    AttemptEvents,
    AttemptsRecalled,
    AttemptStarted,
    ExecutorGone,
    ExecutorLoaded,
    ExecutorUsage,
    FromWorker,
    Hello,
    NumberedFrame,
    WorkerPong,
    from_worker_decoder,
)

log = logging.getLogger(__name__)


class WorkerMessageHandler:
    """Decodes frames, passes each message to its handler, and acknowledges what is durable."""

    def __init__(
        self,
        *,
        lifecycle: JobLifecycle,
        dispatcher: Dispatcher,
        plan_trigger: PlanTrigger,
        worker_pool: WorkerPool,
        attempts: AttemptMessageHandler,
        executors: ExecutorMessageHandler,
        device_registry: DeviceRegistry,
        other_handlers: Mapping[type[Any], Callable[[WorkerHandle, Any], None]],
    ) -> None:
        self._lifecycle = lifecycle
        self._dispatcher = dispatcher
        self._plan_trigger = plan_trigger
        self._worker_pool = worker_pool
        self._attempts = attempts
        self._executors = executors
        self._reconnects = Reconnects(
            dispatcher=dispatcher,
            plan_trigger=plan_trigger,
            executors=executors,
            device_registry=device_registry,
        )
        self._handlers: dict[type[Any], Callable[[WorkerHandle, Any], None]] = {
            AttemptEnded: attempts.on_attempt_ended,
            AttemptEvents: attempts.on_attempt_events,
            AttemptStarted: attempts.on_attempt_started,
            ExecutorLoaded: executors.on_executor_loaded,
            AttemptsRecalled: executors.on_attempts_recalled,
            ExecutorGone: executors.on_executor_gone,
            ExecutorUsage: executors.on_executor_usage,
            Hello: lambda _, message: None,
            WorkerPong: lambda _, message: None,
            **other_handlers,
        }

    def handle_frame(self, worker: WorkerHandle, frame: list[bytes]) -> None:
        """Handle a frame of a worker: its messages in order, then one acknowledgement and one wake-up.

        Messages behind a `NumberedFrame` have consecutive numbers from its `first` on; those before it have
        none. Numbers up to the last one applied were handled before and are skipped.
        """
        number = 0
        for raw in frame:
            message = self._decode(worker, raw, is_numbered=number > 0)
            if type(message) is NumberedFrame:
                number = message.first
                continue
            if number:
                number += 1
                if number - 1 <= worker.connection.last_applied:
                    continue
                worker.connection.last_applied = number - 1
            if message is None:
                continue
            try:
                self._handlers[type(message)](worker, message)
            except Exception:
                self._on_failure(worker, message, is_numbered=number > 0)
        if number:
            self._acknowledge(worker)
        self._reconnects.resolve_if_complete(worker)
        self._plan_trigger.wake()

    def on_worker_reconnected(self, worker: WorkerHandle, hello: Hello) -> None:
        """Compare the work that a reconnected worker holds with the work sent to it.

        Called before the first frame of the new connection is handled.
        """
        self._reconnects.on_reconnected(worker, hello)

    def _decode(self, worker: WorkerHandle, raw: bytes, *, is_numbered: bool) -> FromWorker | None:
        """Decode a message; None if it does not decode. It counts in the numbering all the same."""
        try:
            message: FromWorker = from_worker_decoder.decode(raw)
        except UNDECODABLE as error:
            self._lifecycle.statistics.bad_frame_count += 1
            log.error("failed to decode a message of %s: %s", worker.name, error)
            if is_numbered:
                # It may have been the end of an attempt: see `_on_failure`.
                worker.kill()
            return None
        return message

    def _on_failure(self, worker: WorkerHandle, message: Any, *, is_numbered: bool) -> None:
        """Log a message that failed; the other messages of its frame are handled all the same.

        A numbered message may be half applied and is not sent again: its attempt would seem to run for ever.
        So its worker is killed and replaced, and the jobs that it held are requeued.
        """
        # The message contains the job's data, which does not belong in the log.
        job_text = getattr(message, "job_id", "no job")
        log.exception("failed to handle %s of %s from %s", type(message).__name__, job_text, worker.name)
        if is_numbered:
            worker.kill()

    def _acknowledge(self, worker: WorkerHandle) -> None:
        """Acknowledge to the worker, after the commit, the messages that it may drop."""
        seq = worker.connection.last_applied
        self._lifecycle.journal.call_when_durable(
            lambda _: self._worker_pool.acknowledge(worker, seq), is_urgent=False, is_patient=True
        )

    def on_worker_lost(self, worker: WorkerHandle, why: str) -> None:
        """Handle the death of a worker, and of its executors with it: any of their jobs may be to blame.

        Attempts that ran are interrupted and requeued, those that had not started return to their queue.
        """
        self._reconnects.forget_worker(worker)
        lost = self._dispatcher.executors.of_worker(worker)
        # During a stop workers are killed.
        lost_with = 0 if self._dispatcher.is_paused else sum(map(_count_started, lost))
        for executor in lost:
            try:
                text = f"worker {worker.name} ended: {why}"
                self._attempts.interrupt_attempts(executor, text, worker_lost_with=lost_with)
                self._executors.remove_executor(executor.number)
            except Exception:
                log.exception(
                    "failed to clear up after executor %d, which was lost with its worker", executor.number
                )
        self._plan_trigger.wake()


def _count_started(executor: ExecutorHandle) -> int:
    """Return the number of attempts that ran, or may have started, on an executor."""
    return sum(live.phase in ("staged", "starting", "running") for live in executor.attempts.values())
