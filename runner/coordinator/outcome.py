"""Pure: what follows the end of an attempt: the job has ended, or it goes back into its line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runner.job import Job, JobError
from runner.retry import Backoff, delay_s
from runner.wire import Ended

#: An attempt cut off by a restart, a shutdown or a sick device uses up no retry, but starts are bounded.
EXTRA_STARTS = 10
#: The second attempt of one job that kills its executor is the last, whatever its retries say.
DEATHS_MAX = 2


@dataclass(frozen=True, slots=True)
class Finish:
    """The job has ended."""

    state: Literal["succeeded", "failed", "cancelled"]
    error: JobError | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """The job waits for its next attempt."""

    ready_at: float
    reason: Literal["ready", "retry_backoff"]
    #: What the attempt ended with; it stays visible in the job's attempts.
    error: JobError
    #: Whether the attempt used up a retry.
    counts: bool


def cancelled(reason: str) -> JobError:
    """The error of a cancelled job: its message is the reason."""
    return JobError(code="cancelled", message=reason)


def follow(
    job: Job, ended: Ended, backoff: Backoff, now: float, spread: float, *, blameless: bool = False
) -> Finish | Again:
    """Decide what becomes of `job` after `ended`.

    `job.failures` and `job.deaths` do not count this attempt yet. `spread` in [0, 1) is the jitter's
    random number. `blameless` marks an end that was our misjudgement (a learned memory figure was
    too small): it uses up no retry.
    """
    if job.cancel_reason is not None:
        return Finish("cancelled", cancelled(job.cancel_reason))
    if ended.code is None:
        return Finish("succeeded")
    error = JobError(ended.code, ended.message, ended.retryable, ended.detail)
    if ended.code == "cancelled":
        return Finish("cancelled", cancelled(ended.message or "cancelled"))
    if ended.died and job.deaths + 1 >= DEATHS_MAX:
        message = f"{job.deaths + 1} attempts killed their executor; the last: {ended.message}"
        return Finish("failed", JobError("poisoned", message, False, ended.detail))
    retries = job.terms.retries
    if ended.code == "interrupted" or blameless:
        if job.attempt >= retries + EXTRA_STARTS:
            message = f"started {job.attempt} times, the bound; the last: {ended.message}"
            return Finish("failed", JobError("interrupted", message, True, ended.detail))
        return Again(now, "ready", error, counts=False)
    if error.is_of_device and ended.retryable and not _had_device_fault(job):
        # What else runs on the device, or its driver, may be to blame: once it is tried again for nothing.
        return Again(now, "ready", error, counts=False)
    if not ended.retryable or job.failures >= retries or job.attempt >= retries + EXTRA_STARTS:
        return Finish("failed", error)
    if ended.retry_at is not None:
        return Again(max(now, ended.retry_at), "retry_backoff", error, counts=True)
    return Again(now + delay_s(backoff, job.failures + 1, spread), "retry_backoff", error, counts=True)


def _had_device_fault(job: Job) -> bool:
    return any(record.error is not None and record.error.is_of_device for record in job.attempts)
