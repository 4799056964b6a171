"""Effect: handles attempt messages of workers: starts, events, ends. Messages of old attempts are dropped.

An attempt may be reported late, in part or twice: workers send unacknowledged messages again after a
reconnect, and an executor that was sent an attempt in advance may end it before its start is reported. So
each message is matched to the attempt in flight, and a start that was not reported is recorded with the first
message after it.
"""

from __future__ import annotations

import logging
import math

from gpu.planning import oom_escalation
from gpu.planning.oom_escalation import OomCircumstances
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.devices.health_monitor import HealthMonitor
from runner.coordinator.devices.memory_monitor import MemoryMonitor
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.jobs.attempt_end import AttemptEnd, build_attempt_end, unreported_end
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.jobs.retry_decision import is_out_of_memory
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.processes.worker_pool import WorkerHandle
from runner.coordinator.worker_events.estimate_recorder import EstimateRecorder
from runner.protocol.worker import AttemptEnded, AttemptEvents, AttemptStarted

log = logging.getLogger(__name__)


class AttemptMessageHandler:
    """One method per message type. A message counts only while its attempt is the one in flight.

    All methods run on the event loop and do not wait. Their changes are durable with the journal's next
    commit, after which the message is acknowledged to its worker.
    """

    def __init__(
        self,
        *,
        lifecycle: JobLifecycle,
        scheduler_state: SchedulerState,
        dispatcher: Dispatcher,
        memory_monitor: MemoryMonitor,
        estimate_recorder: EstimateRecorder,
        health_monitor: HealthMonitor,
    ) -> None:
        self._lifecycle = lifecycle
        self._scheduler_state = scheduler_state
        self._dispatcher = dispatcher
        self._memory_monitor = memory_monitor
        self._estimate_recorder = estimate_recorder
        self._health_monitor = health_monitor
        self._clock = lifecycle.clock

    def find_current(self, job_id: str, attempt: int) -> LiveJob | None:
        """Return the job if this attempt is in flight.

        None, and the message counts as stale, if the job is unknown, has ended, or has another attempt in
        flight.
        """
        live = self._lifecycle.registry.by_id.get(job_id)
        if live is None or live.attempt_in_flight != attempt or live.phase == "ended":
            self._lifecycle.statistics.stale_count += 1
            return None
        return live

    def on_attempt_started(self, _: WorkerHandle, message: AttemptStarted) -> None:
        """Mark the attempt as running: its user code runs.

        The message comes 20 ms after the start, or at once if nothing is staged. Attempts that are staged
        behind this one are recalled: they may start earlier on another executor.
        """
        live = self.find_current(message.job_id, message.attempt)
        if live is None or live.executor is None:
            return
        at = self._clock.from_wall_time(message.at)
        executor = self._dispatcher.executors[live.executor]
        if live.job.attempt < live.attempt_in_flight:
            self._start_attempt(executor, live, at)
        else:
            self._lifecycle.mark_running(live, at)
        if (
            executor.spec.options.slots > 1
            or self._scheduler_state.executors[executor.number].long_job_number is not None
        ):
            # No attempt is staged behind it, or the others were recalled because of its batch.
            return
        # The mark comes first: recalled attempts must not be staged here again.
        self._scheduler_state.mark_long_running(executor.number, live.job.number)
        self._dispatcher.control.recall_staged(executor)

    def on_attempt_events(self, _: WorkerHandle, message: AttemptEvents) -> None:
        """Record the events of an attempt, such as progress and output.

        Messages up to `applied_seq` were applied before and are dropped.
        """
        live = self.find_current(message.job_id, message.attempt)
        if live is None or live.executor is None:
            return
        if live.job.attempt < live.attempt_in_flight:
            self._start_attempt(self._dispatcher.executors[live.executor], live, self._clock.now())
        elif message.seq <= live.job.applied_seq:
            return
        self._lifecycle.record_events(live, message)

    def on_attempt_ended(self, _: WorkerHandle, message: AttemptEnded) -> None:
        """End the attempt; its executor may be closing or due for replacement.

        The order matters: device health and estimates are updated while the executor still holds the attempt,
        and the attempt is released before the job is requeued, so that the next plan finds the place free.
        """
        live = self.find_current(message.job_id, message.attempt)
        if live is None or live.executor is None:
            return
        executor = self._dispatcher.executors[live.executor]
        if live.job.attempt < live.attempt_in_flight and (
            message.started_at is not None or message.code != "cancelled"
        ):
            started_at = message.started_at
            at = self._clock.now() if started_at is None else self._clock.from_wall_time(started_at)
            self._start_attempt(executor, live, at)
        if message.executor_closing:
            # Its end is reported a little later; no attempt may be assigned to it meanwhile.
            self._dispatcher.control.close(executor)
        elif message.has_memory_grown:
            log.info(
                "executor %d (%s) is replaced: its memory has grown", executor.number, executor.spec.name
            )
            self._dispatcher.control.retire(executor)
        end = self._build_end(executor, message)
        circumstances = None
        if end.code is not None:
            self._health_monitor.on_attempt_failed(end, executor.devices, executor.spec.name)
            circumstances = self._oom_circumstances(executor, live, end)
        self._estimate_recorder.on_attempt_ended(executor, live, end, circumstances)
        if end.peak_bytes is not None:
            self._assume_peak(executor, end.peak_bytes)
        self._release_attempt(executor, live)
        self._lifecycle.end_attempt(live, end, oom=circumstances)

    def interrupt_attempts(self, executor: ExecutorHandle, why: str, *, worker_lost_with: int) -> None:
        """End the attempts that ran or may have started on an executor that is gone without a report.

        They end as `interrupted`, which uses up no retry, or as `timeout` if their time was over. In a batch
        of several the one to blame is unknown, so that none of them times out. `why` becomes the message of
        their error; for `worker_lost_with` see `interrupted_end`.
        """
        is_shared = executor.is_batched and len(executor.attempts) > 1
        for live in list(executor.attempts.values()):
            if live.phase == "staged":
                # It may have started unreported: its number must not be given to user code again.
                self._start_attempt(executor, live, self._clock.now())
            if live.phase in ("starting", "running"):
                end = unreported_end(
                    live,
                    why,
                    now_mono=self._clock.now_mono(),
                    grace_s=math.inf if is_shared else executor.spec.options.grace_s,
                    worker_lost_with=worker_lost_with,
                )
                self._release_attempt(executor, live)
                self._lifecycle.end_attempt(live, end)

    def _build_end(self, executor: ExecutorHandle, message: AttemptEnded) -> AttemptEnd:
        """Build the end of an attempt from its message, its devices and its memory; called once for each.

        Times of the worker are converted to the coordinator's clock. The peak is measured only for executors
        with a grant, and a lost device is looked for only after a failure.
        """
        retry_at, peak_bytes, lost_device = message.retry_at, message.peak_bytes, None
        if retry_at is not None:
            retry_at = self._clock.from_wall_time(retry_at)
        if message.code is not None:
            lost_device = self._health_monitor.find_lost_device(executor.devices)
        if executor.grant_bytes:
            peak_bytes = self._memory_monitor.on_attempt_ended(executor, message)
        return build_attempt_end(message, retry_at=retry_at, peak_bytes=peak_bytes, lost_device=lost_device)

    def _start_attempt(self, executor: ExecutorHandle, live: LiveJob, at: float) -> None:
        """Record that user code of an attempt has run since `at` (UTC epoch seconds), which was not known."""
        self._lifecycle.start_attempt(
            live,
            at=at,
            worker=executor.worker.name,
            devices=executor.devices,
            is_loading=False,
            granted_bytes=executor.grant_bytes,
            meter=executor.meter,
        )

    def _oom_circumstances(
        self, executor: ExecutorHandle, live: LiveJob, end: AttemptEnd
    ) -> OomCircumstances | None:
        """Return the circumstances of an attempt that ran out of device memory; None for all others.

        None too for a batch of which no single job is to blame: the batch was too large.
        """
        if end.is_blame_unknown or live.job_class is None:
            return None
        grant_bytes = executor.grant_bytes if executor.spec.options.gpus else 0
        if not is_out_of_memory(end, grant_bytes=grant_bytes):
            return None
        started_at = live.job.started_at or 0.0
        ceiling_bytes = live.job.terms.vram_bytes if executor.is_grant_fixed else None
        return oom_escalation.oom_circumstances(
            self._scheduler_state, live.job_class, executor.number, started_at, ceiling_bytes
        )

    def _release_attempt(self, executor: ExecutorHandle, live: LiveJob) -> None:
        """Remove an attempt that no longer occupies its executor, here and in the planner's state."""
        number = live.job.number
        executor.finish_attempt(number)
        if live.job_class is not None:
            self._scheduler_state.on_attempt_ended(executor.number, live.job_class, number, self._clock.now())

    def _assume_peak(self, executor: ExecutorHandle, peak_bytes: int) -> None:
        """Assume until the next reading that the executor holds what the attempt held: readings come once a
        second, and an idle executor is charged no more than the last of them."""
        is_exact = self._scheduler_state.ledger.usage.level(executor.devices[0]) == "exact"
        # An exact peak is the sum over all devices.
        per_device_bytes = peak_bytes // len(executor.devices) if is_exact else peak_bytes
        self._scheduler_state.ledger.usage.assume_usage(executor.number, per_device_bytes)
