"""Effect: handles executor messages of workers: loads, recalled attempts, memory in use, ends.

A message about an executor that the coordinator no longer knows is dropped: it was given up as stuck, or its
worker was lost meanwhile.
"""

from __future__ import annotations

from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.devices.health_monitor import HealthMonitor
from runner.coordinator.devices.memory_monitor import MemoryMonitor
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.processes.worker_pool import WorkerHandle
from runner.coordinator.worker_events.attempt_message_handler import AttemptMessageHandler
from runner.coordinator.worker_events.estimate_recorder import EstimateRecorder
from runner.protocol.worker import STUCK, AttemptsRecalled, ExecutorGone, ExecutorLoaded, ExecutorUsage


class ExecutorMessageHandler:
    """One method per message type; all run on the event loop and do not wait."""

    def __init__(
        self,
        *,
        lifecycle: JobLifecycle,
        scheduler_state: SchedulerState,
        dispatcher: Dispatcher,
        memory_monitor: MemoryMonitor,
        estimate_recorder: EstimateRecorder,
        attempts: AttemptMessageHandler,
        health_monitor: HealthMonitor,
        device_registry: DeviceRegistry,
    ) -> None:
        self._lifecycle = lifecycle
        self._clock = lifecycle.clock
        self._scheduler_state = scheduler_state
        self._dispatcher = dispatcher
        self._memory_monitor = memory_monitor
        self._estimate_recorder = estimate_recorder
        self._attempts = attempts
        self._health_monitor = health_monitor
        self._device_registry = device_registry

    def on_executor_loaded(self, _: WorkerHandle, message: ExecutorLoaded) -> None:
        """Mark the executor as loaded.

        The ledger is updated first: the planner and the estimates read its figures.
        """
        executor = self._dispatcher.executors.get(message.executor)
        if executor is None:
            return
        executor.mark_loaded()
        self._memory_monitor.on_loaded(executor, message)
        self._scheduler_state.on_loaded(message.executor, message.resident_bytes, self._clock.now())
        self._estimate_recorder.on_loaded(executor, message)
        self._dispatcher.prewarming.on_loaded(executor)

    def on_attempts_recalled(self, _: WorkerHandle, message: AttemptsRecalled) -> None:
        """Return recalled attempts, which the executor had not started, to the front of the queue.

        The last one is returned first, so that they keep their order there.
        """
        executor = self._dispatcher.executors.get(message.executor)
        for job_id, attempt in reversed(message.attempts):
            live = self._attempts.find_current(job_id, attempt)
            if live is None or executor is None or not executor.remove_recalled(live.job.number):
                # Reported twice around a reconnect: another executor may hold the attempt by now.
                continue
            if live.job_class is not None:
                self._scheduler_state.on_attempt_ended(
                    executor.number, live.job_class, live.job.number, self._clock.now(), has_run=False
                )
            self._return_unstarted(live)

    def on_executor_gone(self, _: WorkerHandle, message: ExecutorGone) -> None:
        """Handle the end of an executor, or a report that SIGKILL does not end it.

        A stuck executor keeps its bytes in the ledger; other executors on devices that it closes are retired.
        """
        executor = self._dispatcher.executors.get(message.executor)
        if executor is None:
            # It was given up before, or its worker has died.
            self._device_registry.clear_stuck(message.executor)
        elif message.code == STUCK:
            self.remove_executor(message.executor, message, has_exited=False)
            closed_devices = self._health_monitor.on_stuck(message.executor, executor.devices)
            for other in self._dispatcher.executors.on_any_device(closed_devices):
                self._dispatcher.control.retire(other)
        else:
            self.remove_executor(message.executor, message)

    def remove_executor(
        self, number: int, message: ExecutorGone | None = None, *, has_exited: bool = True
    ) -> None:
        """Remove an executor whose processes have ended or were given up (`has_exited=False`).

        Attempts that it still held have not started and return to the queue. `message` is the worker's report
        of the end, None if the worker is gone. Does nothing if the executor was removed before.
        """
        executor = self._dispatcher.executors.pop(number, None)
        if executor is None:
            return
        self._scheduler_state.on_executor_gone(number, self._clock.now() if has_exited else None)
        for live in reversed(list(executor.attempts.values())):
            # The code that was about to send an assigned attempt returns it.
            if live.phase != "assigned":
                self._return_unstarted(live)
        if message is None:
            self._dispatcher.prewarming.on_executor_gone(executor, "interrupted", "its worker is gone")
        else:
            self._dispatcher.prewarming.on_executor_gone(
                executor, message.code, message.message, message.detail
            )

    def on_executor_usage(self, _: WorkerHandle, message: ExecutorUsage) -> None:
        """Record the memory that executors use now, in bytes over all of their devices."""
        for number, nbytes in message.executors:
            self._scheduler_state.ledger.usage.record_total(number, nbytes)

    def _return_unstarted(self, live: LiveJob) -> None:
        """Return an attempt that has not started to the queue, or end its job if a cancel was requested."""
        if live.job.cancel_reason is not None:
            self._lifecycle.cancel_unstarted(live, live.job.cancel_reason)
        else:
            self._lifecycle.return_unstarted(live)
