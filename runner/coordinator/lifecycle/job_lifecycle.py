"""Effect: the lifecycle of jobs from acceptance to end: every change of a job's state happens here.

A change is made in memory and recorded in the journal in one step on the event loop, so the store sees each
job's states in order. Clients get their replies after the commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Literal

from gpu.planning.oom_escalation import OomCircumstances, OomRung
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.jobs import admission, explanations, retry_decision
from runner.coordinator.jobs.attempt_end import AttemptEnd
from runner.coordinator.jobs.event_json import done_fields, requeue_fields, status_fields
from runner.coordinator.jobs.job_registry import JobRegistry, LiveJob
from runner.coordinator.jobs.retry_decision import RequeueReason
from runner.coordinator.jobs.statistics import Statistics
from runner.coordinator.jobs.usage_meter import UsageMeter
from runner.coordinator.lifecycle.attempt_usage import AttemptUsageRecorder
from runner.coordinator.lifecycle.event_log import EventLog
from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.queue.spill import INPUTS_MAX_BYTES
from runner.coordinator.runtime.clock import Clock
from runner.coordinator.storage.journal import Journal
from runner.errors import QueueFull, StoreUnavailable, Unsatisfiable
from runner.jobs.job import AttemptRecord, Job, JobError, Submission
from runner.jobs.retry import Backoff
from runner.protocol.worker import AttemptEvents

log = logging.getLogger(__name__)

#: How the next attempt of a job runs after it ran out of device memory, for the log.
_RUNG_TEXTS: dict[OomRung | None, str] = {
    OomRung.ALONE: " alone",
    OomRung.LARGER: " with more memory",
    OomRung.WHOLE: " with a whole device",
}
#: The number of latest attempts that a job keeps.
ATTEMPTS_KEPT = 100


class JobLifecycle:
    """Changes the states of the live jobs.

    It never communicates with workers: the `Dispatcher` starts and cancels attempts, and reports their ends.
    """

    def __init__(
        self,
        *,
        registry: JobRegistry,
        scheduler_state: SchedulerState,
        journal: Journal,
        statistics: Statistics,
        usage_recorder: AttemptUsageRecorder,
        clock: Clock,
        jitter: Callable[[], float],
        queue_manager: QueueManager,
        event_log: EventLog,
        queued_max: int,
    ) -> None:
        self.registry = registry
        self.scheduler_state = scheduler_state
        self.journal = journal
        self.statistics = statistics
        self.usage_totals = usage_recorder.totals
        self._usage = usage_recorder
        self.clock = clock
        self._jitter = jitter
        self._queued_max = queued_max
        self._queue_manager = queue_manager
        self._event_log = event_log
        self._spill_pool = queue_manager.spill_pool
        self._handlers = queue_manager.handlers

    # Accept.

    def submit(self, submission: Submission) -> LiveJob:
        """Add a job; it is accepted once the journal has committed it. Nothing is changed if this raises.

        Raises:
            UnknownHandler, HandlerBroken: the handler can't be used.
            Unsatisfiable: no device could ever fit the job.
            QueueFull: the limit of queued jobs of all queues is reached.
            TooManyNames: the job names a queue, tenant or model beyond the limits.
        """
        spec = self._handlers.require(submission.handler)
        if self.registry.queued_count >= self._queued_max:
            message = f"{self._queued_max} jobs are queued, the limit; try again later"
            raise QueueFull(message, retry_after_s=5.0)
        now = self.clock.now()
        job = admission.make_job(submission, spec, 0, now)
        self.registry.names.require_room(job)  # guard: name-limits
        job_class = admission.class_of_job(job, spec, has_gpu=self._handlers.has_gpu)
        misfit = self.scheduler_state.memory_needs.misfit(job_class)
        if misfit is not None:
            raise Unsatisfiable(explanations.explain_misfit(job.handler, misfit), **misfit)
        job.number = self.registry.next_number()
        live = LiveJob(job, submission.input, "waiting")
        self._spill_pool.input_bytes += job.input_bytes
        self.registry.add(live)
        self.journal.insert(job, submission.input)
        self._event_log.append(job, "status", now, status_fields(job, job.reason or "ready"))
        self._queue_manager.enqueue(live, job_class)
        if self._spill_pool.input_bytes > INPUTS_MAX_BYTES:
            self.journal.call_when_durable(partial(self._drop_durable_input, live), is_urgent=False)
        return live

    def _drop_durable_input(self, live: LiveJob, failure: StoreUnavailable | None) -> None:
        # In the next iteration: the reply to its submitter, which needs the input, is about to be built.
        asyncio.get_running_loop().call_soon(self._spill_pool.drop_input, live, failure)

    # Attempts.

    def start_attempt(
        self,
        live: LiveJob,
        *,
        at: float,
        worker: str,
        devices: list[str],
        is_loading: bool,
        granted_bytes: int = 0,
        meter: UsageMeter | None = None,
    ) -> None:
        """Record that the attempt in flight has started: it counts from now on.

        `at` is the start in UTC epoch seconds. With `is_loading` user code does not run yet, see
        `mark_running`. `granted_bytes` are those of the executor on each device; `meter` is the meter of the
        executor, if that occupies devices.
        """
        job = live.job
        self._queue_manager.dequeue(live)
        had_unused_attempt = live.has_unused_attempt
        if is_loading:
            live.mark_starting()
        else:
            live.mark_running(self.clock.now_mono())
        job.attempt = live.attempt_in_flight
        if had_unused_attempt:
            del job.attempts[-1]
        self.registry.set_state(job, "running")
        job.reason = None
        job.started_at = at
        job.applied_seq = 0
        job.progress = None
        is_alone = live.job_class is not None and live.job_class.alone_on_device
        record = AttemptRecord(job.attempt, worker, devices, at, granted_bytes=granted_bytes, alone=is_alone)
        job.attempts.append(record)
        self._usage.start(live, record, meter, at)
        if len(job.attempts) > ATTEMPTS_KEPT:
            del job.attempts[0]
        self._event_log.append(job, "status", at, status_fields(job, "loading" if is_loading else "running"))
        if job.attempt == 1:
            live.record_first_start(job.last_seq)

    def mark_running(self, live: LiveJob, at: float) -> None:
        """Mark a job as running: loading is over, user code runs."""
        if live.phase == "starting":
            live.mark_running(self.clock.now_mono())
            self._event_log.append(live.job, "status", at, status_fields(live.job, "running"))

    def record_events(self, live: LiveJob, message: AttemptEvents) -> None:
        """Record events of the running attempt, in the order of its message."""
        job = live.job
        job.applied_seq = message.seq
        for kind, at, fields in message.events:
            self._event_log.append_from_worker(job, kind, at, fields)

    def end_attempt(self, live: LiveJob, end: AttemptEnd, *, oom: OomCircumstances | None = None) -> None:
        """End the attempt in flight and its job, or requeue that; `oom` is set if it ran out of memory."""
        now = self.clock.now()
        job = live.job
        job.applied_seq = end.seq
        backoff = job.terms.backoff or Backoff()
        decision = retry_decision.decide(job, end, backoff, now, self._jitter(), oom=oom)
        live.clear_attempt()
        if end.executor_died and not end.is_blame_unknown:
            job.deaths += 1
        if oom is not None:
            job.ran_out = (*job.ran_out, oom.grant_bytes)
        self._usage.end(live, end, decision.error, now)
        _log_failed_attempt(job, end, decision, now)
        if isinstance(decision, retry_decision.Finish):
            job.files = end.files
            self.finish(live, decision.state, decision.error, end.output)
            return
        job.failures += decision.uses_retry
        job.rung = decision.rung or job.rung  # guard: rung-kept
        self.statistics.retried_count += 1
        self.requeue(live, decision.ready_at, decision.reason, decision.error)

    def return_unstarted(self, live: LiveJob) -> None:
        """Return a job whose attempt in flight will not start to the front of its queue."""
        self.clear_attempt(live)
        if live.job.state == "running":
            self.requeue(live, live.job.ready_at, "ready", None)
            return
        self._queue_manager.enqueue(live, at_front=True)

    def clear_attempt(self, live: LiveJob) -> None:
        """Clear the attempt in flight, which has not started. If its start was counted before it was sent,
        its number is kept for the next one; otherwise waiting would use up the bounded starts."""
        job = live.job
        is_unused = job.state == "running" and job.attempt == live.attempt_in_flight
        if is_unused:
            job.started_at = live.previous_started_at
            record = job.attempts[-1]
            record.ended_at = self.clock.now()
            record.error = retry_decision.returned_error()
        self._usage.discard(live, self.clock.now())
        live.clear_attempt(is_unused=is_unused)

    def requeue(self, live: LiveJob, ready_at: float, reason: RequeueReason, error: JobError | None) -> None:
        """Requeue a job, to start at `ready_at` (UTC epoch seconds) at the earliest; with reason `ready` at
        the front of its queue. The event shows the reason, and the `error` of an attempt that failed."""
        job = live.job
        self.registry.set_state(job, "queued")
        job.ready_at = ready_at
        job.reason = "retry_backoff" if reason == "retry_backoff" else None
        self._event_log.append(job, "status", self.clock.now(), requeue_fields(job, reason, error))
        self._queue_manager.enqueue(live, at_front=reason == "ready")

    def finish(
        self,
        live: LiveJob,
        state: Literal["succeeded", "failed", "cancelled"],
        error: JobError | None,
        output: bytes | None = None,
    ) -> None:
        """End a job in a terminal state; waiting clients get their replies after the commit. `output` is JSON
        text and kept on success only; None is stored as `null`."""
        job = live.job
        now = self.clock.now()
        if state != "succeeded":
            output = None
        elif output is None:
            output = b"null"
        self._queue_manager.dequeue(live)
        live.mark_ended(output)
        self.registry.set_state(job, state)
        job.error = error
        job.reason = None if error is None else error.code
        job.finished_at = now
        if output is not None:
            job.output_bytes = len(output)
            self.journal.add_output(job, output)
        self._event_log.append(job, "done", now, done_fields(job, output))
        self.statistics.record_job_end(job)
        is_urgent = live.end_callbacks is not None
        self.journal.call_when_durable(
            lambda _: self._on_end_durable(live), is_urgent=is_urgent, is_patient=True
        )

    def cancel_unstarted(self, live: LiveJob, reason: str) -> None:
        """End a job that no executor holds, or whose attempt has not started there."""
        self.clear_attempt(live)
        live.job.cancel_reason = reason
        self.finish(live, "cancelled", retry_decision.cancelled_error(reason))

    def mark_cancelling(self, live: LiveJob, reason: str) -> None:
        """Record a cancel that is under way at the executor; the job will end as cancelled."""
        job = live.job
        job.cancel_reason = reason
        self._event_log.append(job, "status", self.clock.now(), status_fields(job, "cancelling"))

    def resubmit(self, job: Job, input_: bytes) -> LiveJob:
        """Queue an ended job again, under its id, with all of its retries. `input_` is its JSON text."""
        self.registry.uncount(job)
        admission.reset_job(job, self.clock.now())
        live = LiveJob(job, None, "waiting")
        self._spill_pool.keep_input(live, input_)
        self.registry.add(live)
        self._event_log.append(job, "status", job.ready_at, status_fields(job, "ready"))
        self._queue_manager.enqueue(live)
        return live

    def _on_end_durable(self, live: LiveJob) -> None:
        """Remove a job whose end is durable, and call its callbacks."""
        if live.job.finished_at is None:
            return
        if live.input is not None:
            self._spill_pool.input_bytes -= live.job.input_bytes
        self.registry.remove(live)
        for callback in live.take_end_callbacks():
            callback(live)


def _log_failed_attempt(
    job: Job, end: AttemptEnd, decision: retry_decision.Finish | retry_decision.Requeue, now: float
) -> None:
    """Log an attempt that did not succeed: handler, error code, message, and what follows.

    What follows reads `retrying in 0.9 s (1 retry left)`; `job.failures` does not count this attempt yet.
    """
    if end.code is None:
        return
    if isinstance(decision, retry_decision.Finish):
        next_step = f"job {decision.state}"
    else:
        delay_s = decision.ready_at - now
        next_step = f"retrying in {delay_s:.1f} s" if delay_s >= 0.05 else "retrying"
        next_step += _RUNG_TEXTS.get(decision.rung, "") + _retries_text(job, decision)
    log.info(
        "%s: %s: %s; %s",
        job.handler,
        end.code,
        end.message,
        next_step,
        extra={"job": job.id, "attempt": job.attempt},
    )


def _retries_text(job: Job, decision: retry_decision.Requeue) -> str:
    """Return how many retries are left after one that counts, or that this one does not count."""
    if not decision.uses_retry:
        return " (not counted as a retry)"
    left = max(0, job.terms.retries - job.failures - 1)
    return f" ({left} {'retry' if left == 1 else 'retries'} left)"
