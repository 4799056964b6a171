"""Pure: the end of an attempt, built once from the worker's message and the coordinator's own facts."""

from __future__ import annotations

from typing import Any

import msgspec

from runner.coordinator.jobs.job_registry import LiveJob
from runner.jobs.job import CONTEXT_LOST, WORKER_LOST, FileRecord
from runner.protocol.worker import AttemptEnded

#: Error codes of attempts that are attributed to the device when it is lost.
LOST_DEVICE_CODES = frozenset(
    ("handler_error", "load_error", "load_timeout", "worker_crashed", "stalled", "device_out_of_memory")
)
#: A device-side assert is the program's fault (an input that a kernel rejects), never the device's.
PROGRAM_FAULT_TEXT = "device-side assert"


class AttemptEnd(msgspec.Struct, frozen=True):
    """How an attempt has ended, as far as anything is decided by it. Times are UTC epoch seconds of the
    coordinator's clock."""

    job_id: str
    #: Number of the message, in the order in which the worker sent those of the attempt.
    seq: int
    #: None for success, else one of job.ErrorCode; `device_lost` if the attempt failed on a lost device.
    code: str | None
    message: str = ""
    detail: Any = None
    #: Whether a failed attempt may be retried at all.
    retryable: bool = True
    #: The earliest start of the next attempt, if user code has named one.
    retry_at: float | None = None
    #: JSON text of the output on success.
    output: bytes | None = None
    files: list[FileRecord] = msgspec.field(default_factory=list)
    run_s: float | None = None
    load_s: float | None = None
    #: The most memory that the attempt used, as reported or as observed: over all of its devices where their
    #: figures are exact, else on the one that used most.
    peak_bytes: int | None = None
    #: The attempt killed its executor.
    executor_died: bool = False
    #: Number of attempts in the same call: 1, or the size of the batch.
    batch_size: int = 1
    #: All attempts of the batch or of the executor ended this way together: the one to blame is unknown.
    is_blame_unknown: bool = False
    #: The lost device to which the failure is attributed.
    lost_device: str | None = None

    @property
    def may_blame_device(self) -> bool:
        """Return whether the failed attempt lost its context and no kernel has rejected its input: the device
        may be faulty."""
        detail = self.detail if isinstance(self.detail, dict) else {}
        return (
            self.lost_device is None
            and bool(detail.get(CONTEXT_LOST))
            and PROGRAM_FAULT_TEXT not in self.message.lower()
        )


def build_attempt_end(
    message: AttemptEnded, *, retry_at: float | None, peak_bytes: int | None, lost_device: str | None = None
) -> AttemptEnd:
    """Build the end of an attempt.

    `retry_at` and `peak_bytes` replace those of the message: they are in the coordinator's time, and include
    its own measurements. `lost_device` is the id of a device of the attempt that is lost: it is to blame for
    the failure, whatever the program made of it.
    """
    code, text = message.code, message.message
    retryable, executor_died = message.retryable, message.executor_died
    if code not in LOST_DEVICE_CODES:
        lost_device = None
    if lost_device is not None:
        text = f"{lost_device} was lost; it ended with {code}: {text}"
        code, retryable, executor_died = "device_lost", True, False
    return AttemptEnd(
        message.job_id,
        message.seq,
        code,
        text,
        message.detail,
        retryable,
        retry_at,
        message.output,
        message.files,
        message.run_s,
        message.load_s,
        peak_bytes,
        executor_died,
        message.batch_size,
        message.is_blame_unknown,
        lost_device,
    )


def unreported_end(
    live: LiveJob, why: str, *, now_mono: float, grace_s: float, worker_lost_with: int = 0
) -> AttemptEnd:
    """Build the end of an attempt in flight whose worker has ended without a report of it.

    The attempt has timed out if its worker should have ended it: its timeout and `grace_s` were over at
    `now_mono`, on the clock of `Clock.now_mono`. Otherwise it was interrupted, see `interrupted_end`.
    """
    job, timeout_s = live.job, live.job.terms.timeout_s
    if (
        timeout_s is not None
        and live.phase == "running"
        and now_mono > live.running_since_mono + timeout_s + grace_s  # guard: timeout-of-hung-worker
    ):
        return AttemptEnd(job.id, job.applied_seq, "timeout", f"timed out after {timeout_s:g} s; {why}")
    return interrupted_end(job.id, job.applied_seq, why, worker_lost_with=worker_lost_with)


def interrupted_end(job_id: str, seq: int, why: str, *, worker_lost_with: int = 0) -> AttemptEnd:
    """Build the end of an attempt that its worker will not report; `seq` is the last applied message.

    `worker_lost_with` is the number of attempts under which the worker has ended, if any of them may be to
    blame.
    """
    detail = {WORKER_LOST: worker_lost_with} if worker_lost_with else None
    return AttemptEnd(job_id, seq, "interrupted", why, detail)
