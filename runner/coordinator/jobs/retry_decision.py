"""Pure: decides what follows the end of an attempt: the job has ended, or it is requeued."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from gpu.planning.oom_escalation import OomCircumstances, OomRung, next_rung, oom_report
from runner.bounds import SECONDS_MAX
from runner.coordinator.jobs.attempt_end import AttemptEnd
from runner.formats.units import format_bytes
from runner.jobs.job import EXCEEDED_LIMIT, MUST_RUN_ALONE, RETURNED, Job, JobError
from runner.jobs.retry import Backoff, delay_s

#: Attempts interrupted by a restart, a shutdown or a faulty device use up no retry, but are bounded by this.
EXTRA_STARTS = 10
#: A job fails with its second attempt that kills the executor, whatever its retries say.
DEATHS_MAX = 2  # guard: deaths-budget
#: A job that ran when its worker ended this many times, beside others, then runs alone on its devices.
SHARED_WORKER_LOSSES_MAX = 2
#: A job that ran alone when its worker ended this many times fails. A worker may also be killed from outside,
#: so this is more than `DEATHS_MAX`.
LONE_WORKER_LOSSES_MAX = 3


#: Error codes of a batch that mean it had too many jobs.
BATCH_TOO_LARGE_CODES = frozenset({"device_out_of_memory", "memory_exceeded"})


RequeueReason = Literal["ready", "retry_backoff"]


@dataclass(frozen=True, slots=True)
class Finish:
    """The job has ended."""

    state: Literal["succeeded", "failed", "cancelled"]
    error: JobError | None = None


@dataclass(frozen=True, slots=True)
class Requeue:
    """The job is queued for its next attempt."""

    ready_at: float
    reason: RequeueReason
    #: The error of the attempt; it stays visible in the job's attempts.
    error: JobError
    #: Whether the attempt used up a retry.
    uses_retry: bool
    #: The next step of the OOM escalation, if the attempt ran out of device memory.
    rung: OomRung | None = None


def is_suspected(job: Job) -> bool:
    """Return whether the job may be what ends its workers: it was there too often, and others with it."""
    return _count_shared_losses(job) >= SHARED_WORKER_LOSSES_MAX


def is_out_of_memory(end: AttemptEnd, *, grant_bytes: int) -> bool:
    """Whether the attempt ended because its granted or the free device memory was too small."""
    if grant_bytes <= 0 or not end.retryable:
        return False
    if end.code == "device_out_of_memory":
        return True
    detail = end.detail if isinstance(end.detail, dict) else {}
    return end.code == "memory_exceeded" and detail.get(EXCEEDED_LIMIT) == "grant"


def cancelled_error(reason: str) -> JobError:
    """Make the error of a cancelled job: its message is the reason."""
    return JobError(code="cancelled", message=reason)


def returned_error() -> JobError:
    """Make the error of an attempt that its executor returned before it started."""
    return JobError("interrupted", "the attempt was returned before it started", True, {RETURNED: True})


def decide(
    job: Job,
    end: AttemptEnd,
    backoff: Backoff,
    now: float,
    jitter: float,
    *,
    oom: OomCircumstances | None = None,
) -> Finish | Requeue:
    """Decide whether `job` is finished after `end`, or requeued for another attempt.

    `job.failures` and `job.deaths` do not count this attempt yet. `jitter` is a random number in [0, 1).
    `oom` holds the circumstances of an attempt that `is_out_of_memory`. A requested cancel comes first, then
    success, then the rules for batches, deaths, memory, interruptions and lost contexts, then the retries.
    """
    if job.cancel_reason is not None:
        return Finish("cancelled", cancelled_error(job.cancel_reason))
    if end.code is None:
        return Finish("succeeded")
    error = JobError(end.code, end.message, end.retryable, end.detail)
    if end.code == "cancelled":
        return Finish("cancelled", cancelled_error(end.message or "cancelled"))
    if end.is_blame_unknown:  # guard: shared-blame
        end, error = _shared_blame(end)
    if end.executor_died and job.deaths + 1 >= DEATHS_MAX:
        message = f"{job.deaths + 1} attempts killed their executor; last: {end.message}"
        return Finish("failed", JobError("poisoned", message, False, end.detail))
    if oom is not None:
        return _escalate(job, end, error, oom, now)
    retries = job.terms.retries
    if error.worker_lost_with == 1 and _count_lone_losses(job) + 1 >= LONE_WORKER_LOSSES_MAX:
        message = (
            f"its worker process ended {LONE_WORKER_LOSSES_MAX} times while no other job ran there; "
            f"last: {end.message}"
        )
        return Finish("failed", JobError("poisoned", message, False, end.detail))
    # A worker that ended beside others counts as no start: the job is set apart soon, see `is_suspected`.
    starts = job.attempt - _count_shared_losses(job)
    if end.code in ("interrupted", "device_lost"):
        if starts >= retries + EXTRA_STARTS and error.worker_lost_with <= 1:
            message = f"started {job.attempt} times, the maximum; last: {end.message}"
            return Finish("failed", JobError("interrupted", message, True, end.detail))
        return Requeue(now, "ready", error, uses_retry=False)
    if error.is_context_lost and end.retryable and not _had_lost_context(job):
        # The device or its driver may be to blame: one retry does not count.
        return Requeue(now, "ready", error, uses_retry=False)
    if not end.retryable or job.failures >= retries or starts >= retries + EXTRA_STARTS:
        return Finish("failed", error)
    # Bounded here too: a job of an older version may have any backoff, and executors run foreign code.
    latest = now + SECONDS_MAX
    if end.retry_at is not None:
        return Requeue(min(max(now, end.retry_at), latest), "retry_backoff", error, uses_retry=True)
    wait_s = delay_s(backoff, job.failures + 1, jitter)
    return Requeue(min(now + wait_s, latest), "retry_backoff", error, uses_retry=True)


def _escalate(
    job: Job, end: AttemptEnd, error: JobError, oom: OomCircumstances, now: float
) -> Finish | Requeue:
    """Take the next step of the OOM escalation without using up a retry, until there is none left."""
    rung = next_rung(job.rung, oom)
    if rung is not None and job.attempt < job.terms.retries + EXTRA_STARTS:
        return Requeue(now, "ready", error, uses_retry=False, rung=rung)
    granted = (*job.ran_out, oom.grant_bytes)
    peaks = [record.vram_peak_bytes or 0 for record in job.attempts]
    detail = oom_report(
        oom,
        declared_bytes=job.terms.vram_bytes,
        granted=granted,
        peak_bytes=max(*peaks, end.peak_bytes or 0, 0) or None,
    )
    grants_text = ", ".join(format_bytes(each) for each in granted)
    message = f"ran out of device memory {len(granted)} times, granted {grants_text}; last: {end.message}"
    attempt_detail = end.detail if isinstance(end.detail, dict) else {}
    return Finish("failed", JobError("device_out_of_memory", message, False, {**attempt_detail, **detail}))


def _shared_blame(end: AttemptEnd) -> tuple[AttemptEnd, JobError]:
    """Convert an error that any job of a batch may have caused into one that counts against none of them.

    Each is requeued to run alone. If memory ran out, the batch was too large, and the jobs may share a call
    again.
    """
    is_fault = end.code not in BATCH_TOO_LARGE_CODES and end.code != "interrupted"
    detail = {
        MUST_RUN_ALONE: is_fault,
        "together": end.batch_size,
        "code": end.code,
        "detail": end.detail,
    }
    message = f"the attempt shared a call with others, and none of them is blamed: {end.code}: {end.message}"
    blameless = msgspec.structs.replace(end, code="interrupted", message=message, executor_died=False)
    return blameless, JobError("interrupted", message, True, detail)


def _count_shared_losses(job: Job) -> int:
    return sum(record.error is not None and record.error.worker_lost_with > 1 for record in job.attempts)


def _count_lone_losses(job: Job) -> int:
    return sum(record.error is not None and record.error.worker_lost_with == 1 for record in job.attempts)


def _had_lost_context(job: Job) -> bool:
    return any(record.error is not None and record.error.is_context_lost for record in job.attempts)
