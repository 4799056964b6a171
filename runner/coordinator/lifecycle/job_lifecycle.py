"""Effect: a job's life from accept to end: every change of a job's state happens here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Literal

from gpu.planning.oom_escalation import OomCircumstances, OomRung
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.jobs import admission, explanations, retry_decision
from runner.coordinator.jobs.event_json import done_fields, status_fields
from runner.coordinator.jobs.job_registry import JobRegistry, LiveJob
from runner.coordinator.jobs.statistics import Statistics
from runner.coordinator.jobs.usage import UsageTotals
from runner.coordinator.jobs.usage_meter import UsageMeter
from runner.coordinator.lifecycle.attempt_usage import AttemptUsageRecorder
from runner.coordinator.lifecycle.event_log import EventLog
from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.queue.spill import INPUTS_MAX_BYTES
from runner.coordinator.queue.timers import Timers
from runner.coordinator.storage.journal import Journal
from runner.errors import QueueFull, StoreUnavailable, Unsatisfiable
from runner.jobs.job import AttemptRecord, Job, JobError, Submission
from runner.jobs.retry import Backoff
from runner.protocol.worker import AttemptEnded, AttemptEvents

log = logging.getLogger(__name__)

#: How a job goes again that ran out of device memory.
_HOW: dict[OomRung | None, str] = {
    OomRung.ALONE: " alone",
    OomRung.LARGER: " with more memory",
    OomRung.WHOLE: " with a whole device",
}
#: A job shows so many of its last attempts.
ATTEMPTS_KEPT = 100


class Line:
    """The jobs that are under way, and what may happen to them.

    It never speaks to a worker: `Dispatch` starts and cancels attempts, and tells what came of them.
    """

    def __init__(
        self,
        *,
        book: JobRegistry,
        view: SchedulerState,
        journal: Journal,
        timers: Timers,
        figures: Statistics,
        accounts: UsageTotals,
        now: Callable[[], float],
        spread: Callable[[], float],
        waiting: QueueManager,
        events: EventLog,
        queued_max: int,
    ) -> None:
        self.book = book
        self.view = view
        self.journal = journal
        self.timers = timers
        self.figures = figures
        self.accounts = accounts
        self._usage = AttemptUsageRecorder(accounts, store_value=journal.set_value)
        self.now = now
        self._spread = spread
        self._queued_max = queued_max
        self.waiting = waiting
        self._events = events
        self._sleep = waiting.spill_pool
        self._handlers = waiting.handlers

    # Accept.

    def submit(self, asked: Submission) -> LiveJob:
        """Take in a job; it is accepted once the journal says so.

        Raises:
            UnknownHandler, HandlerBroken, Unsatisfiable, QueueFull.
        """
        spec = self._handlers.require(asked.handler)
        if self.book.queued_count >= self._queued_max:
            message = f"{self._queued_max} jobs are queued, the limit; try again later"
            raise QueueFull(message, retry_after_s=5.0)
        now = self.now()
        job = admission.make_job(asked, spec, 0, now)
        cls = admission.class_of_job(job, spec, has_gpu=self._handlers.has_gpu)
        misfit = self.view.memory_needs.misfit(cls)
        if misfit is not None:
            raise Unsatisfiable(explanations.explain_misfit(job.handler, misfit), **misfit)
        job.number = self.book.next_number()
        live = LiveJob(job, asked.input, "waiting")
        self._sleep.input_bytes += job.input_bytes
        self.book.add(live)
        self.journal.insert(job, asked.input)
        self._events.append(job, "status", now, status_fields(job, job.reason or "ready"))
        self.waiting.enqueue(live, cls)
        if self._sleep.input_bytes > INPUTS_MAX_BYTES:
            self.journal.call_when_durable(partial(self._drop_input, live), is_urgent=False)
        return live

    def _drop_input(self, live: LiveJob, failure: StoreUnavailable | None) -> None:
        # Whoever submitted it is told with the input in a moment.
        asyncio.get_running_loop().call_soon(self._sleep.drop_input, live, failure)

    # An attempt's way.

    def begin(
        self,
        live: LiveJob,
        *,
        at: float,
        worker: str,
        devices: list[str],
        loading: bool,
        granted_bytes: int = 0,
        meter: UsageMeter | None = None,
    ) -> None:
        """The attempt in flight has started: it counts from now on. `meter`: of its executor, where that
        occupies devices."""
        job = live.job
        self.waiting.dequeue(live)
        job.attempt = live.attempt_in_flight
        live.previous_started_at = job.started_at
        if live.has_unused_attempt:
            live.has_unused_attempt = False
            del job.attempts[-1]
        self.book.set_state(job, "running")
        job.reason = None
        job.started_at = at
        job.applied_seq = 0
        job.progress = None
        alone = live.job_class is not None and live.job_class.alone_on_device
        record = AttemptRecord(job.attempt, worker, devices, at, granted_bytes=granted_bytes, alone=alone)
        job.attempts.append(record)
        self._usage.start(live, record, meter, at)
        if len(job.attempts) > ATTEMPTS_KEPT:
            del job.attempts[0]
        live.phase = "starting" if loading else "running"
        self._events.append(job, "status", at, status_fields(job, "loading" if loading else "running"))

    def runs(self, live: LiveJob, at: float) -> None:
        """Loading is over, user code runs."""
        if live.phase == "starting":
            live.phase = "running"
            self._events.append(live.job, "status", at, status_fields(live.job, "running"))

    def note(self, live: LiveJob, note: AttemptEvents) -> None:
        """Events of the running attempt."""
        job = live.job
        job.applied_seq = note.seq
        for kind, at, fields in note.events:
            self._events.append_from_worker(job, kind, at, fields)

    def end(self, live: LiveJob, ended: AttemptEnded, *, squeeze: OomCircumstances | None = None) -> None:
        """The attempt in flight has ended, one way or another; `squeeze` where it ran out of memory."""
        now = self.now()
        job = live.job
        job.applied_seq = ended.seq
        backoff = job.terms.backoff or Backoff()
        verdict = retry_decision.decide(job, ended, backoff, now, self._spread(), oom=squeeze)
        live.executor = None
        live.attempt_in_flight = 0
        if ended.executor_died and not ended.is_blame_unknown:
            job.deaths += 1
        if squeeze is not None:
            job.ran_out = (*job.ran_out, squeeze.grant_bytes)
        self._usage.end(live, ended, verdict.error, now)
        _tell(job, ended, verdict, now)
        if isinstance(verdict, retry_decision.Finish):
            job.files = ended.files
            self.finish(live, verdict.state, verdict.error, ended.output)
            return
        job.failures += verdict.uses_retry
        job.rung = verdict.rung or job.rung  # guard: rung-kept
        self.figures.retried_count += 1
        self.requeue(live, verdict.ready_at, verdict.reason, event_reason=verdict.reason)

    def put_back(self, live: LiveJob) -> None:
        """The attempt in flight did not start, and will not: back to the front of its line."""
        self._take_back(live)
        if live.job.state == "running":
            self.requeue(live, live.job.ready_at, "ready", event_reason="ready")
            return
        self.waiting.enqueue(live, at_front=True)

    def _take_back(self, live: LiveJob) -> None:
        """Nothing is in flight any more. A later start is counted before it is made; this one was none, but
        its number is written down: it is kept for the next one, or starts would be used up by waiting."""
        job = live.job
        if job.state == "running" and job.attempt == live.attempt_in_flight:
            live.has_unused_attempt = True
            job.started_at = live.previous_started_at
            record = job.attempts[-1]
            record.ended_at = self.now()
            record.error = JobError("interrupted", "it was given back before it started", True)
        self._usage.discard(live, self.now())
        live.executor = None
        live.attempt_in_flight = 0

    def requeue(
        self, live: LiveJob, ready_at: float, reason: Literal["ready", "retry_backoff"], *, event_reason: str
    ) -> None:
        """Back into its line, to start at `ready_at` at the earliest."""
        job = live.job
        self.book.set_state(job, "queued")
        job.ready_at = ready_at
        job.reason = "retry_backoff" if reason == "retry_backoff" else None
        self._events.append(job, "status", self.now(), status_fields(job, event_reason))
        self.waiting.enqueue(live, at_front=reason == "ready")

    def finish(
        self,
        live: LiveJob,
        state: Literal["succeeded", "failed", "cancelled"],
        error: JobError | None,
        output: bytes | None = None,
    ) -> None:
        """The job has its one terminal state; who waits is told after the commit."""
        job = live.job
        now = self.now()
        self.waiting.dequeue(live)
        self.book.set_state(job, state)
        job.error = error
        job.reason = None if error is None else error.code
        job.finished_at = now
        live.phase = "ended"
        if state == "succeeded":
            live.output = output if output is not None else b"null"
            job.output_bytes = len(live.output)
            self.journal.add_output(job, live.output)
        self._events.append(job, "done", now, done_fields(job, live.output))
        self.figures.record_job_end(job)
        hurry = live.end_callbacks is not None
        self.journal.call_when_durable(lambda _: self._settled(live), is_urgent=hurry, is_patient=True)

    def cancel_waiting(self, live: LiveJob, reason: str) -> None:
        """End a job that no executor holds, or that has not started there."""
        self._take_back(live)
        live.job.cancel_reason = reason
        self.finish(live, "cancelled", retry_decision.cancelled_error(reason))

    def cancelling(self, live: LiveJob, reason: str) -> None:
        """A cancel was asked for and is under way at the executor; the job will end as cancelled."""
        job = live.job
        job.cancel_reason = reason
        self._events.append(job, "status", self.now(), status_fields(job, "cancelling"))

    def revive(self, job: Job, input_: bytes) -> LiveJob:
        """A finished job is to run again, under its id."""
        self.book.uncount(job)
        job.state = "queued"
        job.reason, job.error, job.finished_at = None, None, None
        job.failures, job.deaths, job.rung, job.ran_out = 0, 0, 0, ()
        job.started_at, job.progress, job.output_bytes, job.cancel_reason = None, None, None, None
        job.files = []
        job.ready_at = self.now()
        live = LiveJob(job, None, "waiting")
        self._sleep.keep_input(live, input_)
        self.book.add(live)
        self._events.append(job, "status", job.ready_at, status_fields(job, "ready"))
        self.waiting.enqueue(live)
        return live

    def _settled(self, live: LiveJob) -> None:
        """The job's end is durable."""
        if live.job.finished_at is None:
            return
        if live.input is not None:
            self._sleep.input_bytes -= live.job.input_bytes
        self.book.remove(live)
        waiters, live.end_callbacks = live.end_callbacks, None
        for call in waiters or ():
            call(live)


def _tell(
    job: Job, ended: AttemptEnded, verdict: retry_decision.Finish | retry_decision.Requeue, now: float
) -> None:
    """The log's word on an attempt that did not succeed: who, why and what follows."""
    if ended.code is None:
        return
    if isinstance(verdict, retry_decision.Finish):
        follows = f"the job is {verdict.state}"
    else:
        delay_s = verdict.ready_at - now
        follows = f"it goes again in {delay_s:.1f} s" if delay_s >= 0.05 else "it goes again"
        follows += _HOW.get(verdict.rung, "")
    log.info(
        "%s: %s: %s; %s",
        job.handler,
        ended.code,
        ended.message,
        follows,
        extra={"job": job.id, "attempt": job.attempt},
    )
