"""Effect: what workers report of attempts: starts, events, ends. Late news of old attempts is dropped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from gpu.planning import oom_escalation
from gpu.planning.oom_escalation import OomCircumstances
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.devices.memory_monitor import MemoryMonitor
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.jobs.retry_decision import is_out_of_memory
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.processes.worker_pool import WorkerHandle
from runner.coordinator.worker_events.estimate_recorder import EstimateRecorder
from runner.protocol.worker import AttemptEnded, AttemptEvents, AttemptStarted

log = logging.getLogger(__name__)


class AttemptMessageHandler:
    """One method a message. A message counts only while its attempt is the one in flight."""

    def __init__(
        self,
        *,
        line: JobLifecycle,
        view: SchedulerState,
        dispatch: Dispatcher,
        memory: MemoryMonitor,
        learning: EstimateRecorder,
        on_attempt_failed: Callable[[AttemptEnded, Sequence[str], str], None],
        from_wall_time: Callable[[float], float],
    ) -> None:
        self._line = line
        self._view = view
        self._dispatch = dispatch
        self._memory = memory
        self._learning = learning
        #: Called with the end of a failed attempt, its devices and its handler, before anything acts on it.
        self._on_attempt_failed = on_attempt_failed
        self._from_wall_time = from_wall_time

    def find_current(self, job_id: str, attempt: int) -> LiveJob | None:
        """The job, if this attempt is the one in flight; else the message is counted as stale."""
        live = self._line.registry.by_id.get(job_id)
        if live is None or live.attempt_in_flight != attempt or live.phase == "ended":
            self._line.statistics.stale_count += 1
            return None
        return live

    def on_attempt_started(self, _: WorkerHandle, message: AttemptStarted) -> None:
        """User code of the attempt runs."""
        live = self.find_current(message.job_id, message.attempt)
        if live is None or live.executor is None:
            return
        message.at = self._from_wall_time(message.at)
        post = self._dispatch.executors[live.executor]
        if live.job.attempt < live.attempt_in_flight:
            self._start_attempt(post, live, message.at)
        else:
            self._line.mark_running(live, message.at)
        if post.spec.options.slots > 1 or self._view.executors[post.number].long_job_number is not None:
            # Nothing waits behind it, or was called back because of its mates.
            return
        # First the mark: what is recalled must not be staged here again.
        self._view.mark_long_running(post.number, live.job.number)
        self._dispatch.control.recall_staged(post)

    def on_attempt_events(self, _: WorkerHandle, message: AttemptEvents) -> None:
        """The attempt has reported progress, output or other events."""
        live = self.find_current(message.job_id, message.attempt)
        if live is None or live.executor is None:
            return
        if live.job.attempt < live.attempt_in_flight:
            self._start_attempt(self._dispatch.executors[live.executor], live, self._line.now())
        elif message.seq <= live.job.applied_seq:
            return
        self._line.record_events(live, message)

    def on_attempt_ended(self, _: WorkerHandle, message: AttemptEnded) -> None:
        """The attempt has ended; its executor may end with it."""
        live = self.find_current(message.job_id, message.attempt)
        if live is None or live.executor is None:
            return
        post = self._dispatch.executors[live.executor]
        if live.job.attempt < live.attempt_in_flight and (
            message.started_at is not None or message.code != "cancelled"
        ):
            started_at = message.started_at
            at = self._line.now() if started_at is None else self._from_wall_time(started_at)
            self._start_attempt(post, live, at)
        if message.retry_at is not None:
            message.retry_at = self._from_wall_time(message.retry_at)
        if message.executor_closing:
            # It is known to be gone a little later; nothing may be handed to it meanwhile.
            self._dispatch.control.close(post)
        elif message.has_memory_grown:
            log.info("executor %d (%s) has grown: a fresh one follows it", post.number, post.spec.name)
            self._dispatch.control.retire(post)
        if message.code is not None:
            self._on_attempt_failed(message, post.devices, post.spec.name)
        if post.grant_bytes:
            self._memory.on_attempt_ended(post, message)
        circumstances = None if message.code is None else self._oom_circumstances(post, live, message)
        self._learning.on_attempt_ended(post, live, message, circumstances)
        if message.peak_bytes is not None:
            self._assume_peak(post, message.peak_bytes)
        self._release_attempt(post, live)
        self._line.end_attempt(live, message, squeeze=circumstances)

    def interrupt_attempts(self, post: ExecutorHandle, why: str) -> None:
        """The executor is gone without a word: end the attempts that ran or may have started there."""
        for live in list(post.attempts.values()):
            if live.phase == "staged":
                # It may have started, untold: its number must not be given to user code again.
                self._start_attempt(post, live, self._line.now())
            if live.phase in ("starting", "running"):
                self._release_attempt(post, live)
                self._line.end_attempt(
                    live,
                    AttemptEnded(
                        live.job.id, live.attempt_in_flight, live.job.applied_seq, "interrupted", why
                    ),
                )

    def _start_attempt(self, post: ExecutorHandle, live: LiveJob, at: float) -> None:
        """User code of an attempt runs since then, which was not known to have started."""
        self._line.start_attempt(
            live,
            at=at,
            worker=post.worker.name,
            devices=post.devices,
            is_loading=False,
            granted_bytes=post.grant_bytes,
            meter=post.meter,
        )

    def _oom_circumstances(
        self, post: ExecutorHandle, live: LiveJob, message: AttemptEnded
    ) -> OomCircumstances | None:
        """The circumstances of an attempt that ran out of device memory; None for all others."""
        if message.is_blame_unknown or live.job_class is None:
            return None
        grant_bytes = post.grant_bytes if post.spec.options.gpus else 0
        if not is_out_of_memory(message, grant_bytes=grant_bytes):
            return None
        started_at = live.job.started_at or 0.0
        ceiling_bytes = live.job.terms.vram_bytes if post.is_grant_fixed else None
        return oom_escalation.oom_circumstances(
            self._view, live.job_class, post.number, started_at, ceiling_bytes
        )

    def _release_attempt(self, post: ExecutorHandle, live: LiveJob) -> None:
        """The attempt does not occupy its executor any more."""
        number = live.job.number
        if post.attempts.pop(number, None) is not None:
            post.sent_count -= 1
            post.jobs_done += 1
        if live.job_class is not None:
            self._view.on_attempt_ended(post.number, live.job_class, number, self._line.now())

    def _assume_peak(self, post: ExecutorHandle, peak_bytes: int) -> None:
        """Until the next reading the executor may hold what the attempt held: readings come once a second,
        and an idle executor is charged no more than the last of them."""
        is_exact = self._view.ledger.usage.level(post.devices[0]) == "exact"
        # The peak of those is over all devices together.
        per_device_bytes = peak_bytes // len(post.devices) if is_exact else peak_bytes
        self._view.ledger.usage.assume_usage(post.number, per_device_bytes)
