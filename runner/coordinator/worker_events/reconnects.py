"""Effect: finds work that was lost while the connection to a worker was down, and sends commands again.

A message under way when the connection broke may be lost, in either direction. A worker sends its own
messages again. So once all of them are applied, an attempt that was sent but is neither held by the worker
nor reported never arrived; it returns to the queue as if it had been recalled.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.processes.worker_pool import WorkerHandle
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.coordinator.worker_events.executor_message_handler import ExecutorMessageHandler
from runner.protocol.worker import AttemptsRecalled, Hello

log = logging.getLogger(__name__)


class _UnconfirmedWork(NamedTuple):
    """Executors and attempts that a reconnected worker did not name."""

    #: Once this message of the worker is applied, its reports are complete.
    last_seq: int
    executors: list[int]
    attempts: list[AttemptsRecalled]


class Reconnects:
    """Workers that have reconnected and whose pending messages are not all applied.

    All methods run on the event loop. Of a worker that reconnects twice, only the last hello counts.
    """

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        plan_trigger: PlanTrigger,
        executors: ExecutorMessageHandler,
        device_registry: DeviceRegistry,
    ) -> None:
        self._dispatcher = dispatcher
        self._plan_trigger = plan_trigger
        self._executors = executors
        self._device_registry = device_registry
        self._unconfirmed: dict[str, _UnconfirmedWork] = {}

    def on_reconnected(self, worker: WorkerHandle, hello: Hello) -> None:
        """Record work that the worker lacks; nothing new is sent to it until that is resolved."""
        own_executors = self._dispatcher.executors.of_worker(worker)
        reported_executors, reported_attempts = set(hello.executors), set(hello.running)
        attempts = [
            AttemptsRecalled(
                executor.number,
                [
                    key
                    for live in executor.attempts.values()
                    if live.phase != "assigned"
                    and (key := (live.job.id, live.attempt_in_flight)) not in reported_attempts
                ],
            )
            for executor in own_executors
            if executor.number in reported_executors
        ]
        missing_executors = [
            executor.number for executor in own_executors if executor.number not in reported_executors
        ]
        self._unconfirmed[worker.name] = _UnconfirmedWork(hello.last_seq, missing_executors, attempts)
        self.resolve_if_complete(worker)

    def resolve_if_complete(self, worker: WorkerHandle) -> None:
        """Treat the work that the worker did not name as lost, once all of its messages are applied.

        Called after each frame; does nothing before, or if the worker has not reconnected.
        """
        unconfirmed = self._unconfirmed.get(worker.name)
        if unconfirmed is None or worker.connection.last_applied < unconfirmed.last_seq:
            return
        del self._unconfirmed[worker.name]
        attempt_count = sum(len(recalled.attempts) for recalled in unconfirmed.attempts)
        log.warning(
            "%s reconnected; up to %d executors and %d attempts had not reached it",
            worker.name,
            len(unconfirmed.executors),
            attempt_count,
        )
        for number in unconfirmed.executors:
            self._executors.remove_executor(number)
        for recalled in unconfirmed.attempts:
            self._executors.on_attempts_recalled(worker, recalled)
        for executor in self._dispatcher.executors.of_worker(worker):
            self._dispatcher.resend_commands(executor)
        self._device_registry.on_worker_ready(worker)
        self._plan_trigger.wake()

    def forget_worker(self, worker: WorkerHandle) -> None:
        """Drop a worker that has died."""
        self._unconfirmed.pop(worker.name, None)
