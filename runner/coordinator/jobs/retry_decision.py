"""Pure: decides what follows the end of an attempt: the job has ended, or it is requeued."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from gpu.planning.oom_escalation import OomCircumstances, OomRung, next_rung, oom_report
from runner.formats.units import SECONDS_MAX, format_bytes
from runner.jobs.job import EXCEEDED_LIMIT, MUST_RUN_ALONE, Job, JobError
from runner.jobs.retry import Backoff, delay_s
from runner.protocol.worker import AttemptEnded

#: Attempts interrupted by a restart, a shutdown or a faulty device use up no retry, but are bounded by this.
EXTRA_STARTS = 10
#: A job fails with its second attempt that kills the executor, whatever its retries say.
DEATHS_MAX = 2  # guard: deaths-budget


#: Error codes of a batch that mean it had too many jobs.
BATCH_TOO_LARGE_CODES = frozenset({"device_out_of_memory", "memory_exceeded"})


@dataclass(frozen=True, slots=True)
class Finish:
    """The job has ended."""

    state: Literal["succeeded", "failed", "cancelled"]
    error: JobError | None = None


@dataclass(frozen=True, slots=True)
class Requeue:
    """The job waits for its next attempt."""

    ready_at: float
    reason: Literal["ready", "retry_backoff"]
    #: The error of the attempt; it stays visible in the job's attempts.
    error: JobError
    #: Whether the attempt used up a retry.
    uses_retry: bool
    #: The next step of the OOM escalation, if the attempt ran out of device memory.
    rung: OomRung | None = None


def is_out_of_memory(ended: AttemptEnded, *, grant_bytes: int) -> bool:
    """Whether the attempt ended because its granted or the free device memory was too small."""
    if grant_bytes <= 0 or not ended.retryable:
        return False
    if ended.code == "device_out_of_memory":
        return True
    detail = ended.detail if isinstance(ended.detail, dict) else {}
    return ended.code == "memory_exceeded" and detail.get(EXCEEDED_LIMIT) == "grant"


def cancelled_error(reason: str) -> JobError:
    """Make the error of a cancelled job: its message is the reason."""
    return JobError(code="cancelled", message=reason)


def decide(
    job: Job,
    ended: AttemptEnded,
    backoff: Backoff,
    now: float,
    jitter: float,
    *,
    oom: OomCircumstances | None = None,
) -> Finish | Requeue:
    """Decide what becomes of `job` after `ended`.

    `job.failures` and `job.deaths` do not count this attempt yet. `jitter` is a random number in [0, 1).
    `oom` holds the circumstances of an attempt that `is_out_of_memory`.
    """
    if job.cancel_reason is not None:
        return Finish("cancelled", cancelled_error(job.cancel_reason))
    if ended.code is None:
        return Finish("succeeded")
    error = JobError(ended.code, ended.message, ended.retryable, ended.detail)
    if ended.code == "cancelled":
        return Finish("cancelled", cancelled_error(ended.message or "cancelled"))
    if ended.is_blame_unknown:  # guard: shared-blame
        ended, error = _shared_blame(ended)
    if ended.executor_died and job.deaths + 1 >= DEATHS_MAX:
        message = f"{job.deaths + 1} attempts killed their executor; the last: {ended.message}"
        return Finish("failed", JobError("poisoned", message, False, ended.detail))
    if oom is not None:
        return _escalate(job, ended, error, oom, now)
    retries = job.terms.retries
    if ended.code in ("interrupted", "device_lost"):
        if job.attempt >= retries + EXTRA_STARTS:
            message = f"started {job.attempt} times, the bound; the last: {ended.message}"
            return Finish("failed", JobError("interrupted", message, True, ended.detail))
        return Requeue(now, "ready", error, uses_retry=False)
    if error.is_context_lost and ended.retryable and not _had_lost_context(job):
        # The device or its driver may be to blame: one retry does not count.
        return Requeue(now, "ready", error, uses_retry=False)
    if not ended.retryable or job.failures >= retries or job.attempt >= retries + EXTRA_STARTS:
        return Finish("failed", error)
    # Bounded here too: a job of an older version may have any backoff, and executors run foreign code.
    latest = now + SECONDS_MAX
    if ended.retry_at is not None:
        return Requeue(min(max(now, ended.retry_at), latest), "retry_backoff", error, uses_retry=True)
    wait_s = delay_s(backoff, job.failures + 1, jitter)
    return Requeue(min(now + wait_s, latest), "retry_backoff", error, uses_retry=True)


def _escalate(
    job: Job, ended: AttemptEnded, error: JobError, oom: OomCircumstances, now: float
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
        peak_bytes=max(*peaks, ended.peak_bytes or 0, 0) or None,
    )
    grants_text = ", ".join(format_bytes(each) for each in granted)
    message = f"it ran out of device memory {len(granted)}x, granted {grants_text}; the last: {ended.message}"
    attempt_detail = ended.detail if isinstance(ended.detail, dict) else {}
    return Finish("failed", JobError("device_out_of_memory", message, False, {**attempt_detail, **detail}))


def _shared_blame(ended: AttemptEnded) -> tuple[AttemptEnded, JobError]:
    """Convert an error that any job of a batch may have caused into one that counts against none of them.
    Each is requeued to run alone; if memory ran out, the batch was too large and no single job is to
    blame."""
    is_fault = ended.code not in BATCH_TOO_LARGE_CODES and ended.code != "interrupted"
    detail = {
        MUST_RUN_ALONE: is_fault,
        "together": ended.batch_size,
        "code": ended.code,
        "detail": ended.detail,
    }
    message = f"it ran together with others, and nobody is blamed: {ended.code}: {ended.message}"
    blameless = msgspec.structs.replace(ended, code="interrupted", message=message, executor_died=False)
    return blameless, JobError("interrupted", message, True, detail)


def _had_lost_context(job: Job) -> bool:
    return any(record.error is not None and record.error.is_context_lost for record in job.attempts)
