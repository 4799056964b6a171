"""Pure: a job, its attempts and the names of its states.

These structs are stored as arrays (`array_like`): new fields go to the end and need a default.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from runner.jobs.retry import Backoff

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
QueuedReason = Literal[
    "ready",
    "scheduled",
    "paused",
    "waiting_for_memory",
    "waiting_for_device",
    "waiting_for_handler",
    "concurrency_limit",
    "retry_backoff",
]
RunningReason = Literal["loading", "running", "cancelling"]
ErrorCode = Literal[
    "handler_error",
    "permanent_error",
    "invalid_input",
    "timeout",
    "load_timeout",
    "load_error",
    "queue_timeout",
    "stalled",
    "device_out_of_memory",
    "memory_exceeded",
    "worker_crashed",
    "poisoned",
    "device_lost",
    "result_too_large",
    "result_not_serialisable",
    "interrupted",
    "cancelled",
]

ENDED: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})


#: Key in the detail of an error after which the process could no longer use its GPU.
CONTEXT_LOST = "context_lost"
#: Key in the detail of `memory_exceeded`: the exceeded limit, "grant" or "ram".
EXCEEDED_LIMIT = "limit"
#: Key in the detail of an error with several possible culprits: whether the job must then run alone.
MUST_RUN_ALONE = "alone"
#: Key in the detail of an attempt whose worker process has ended under it: the number of attempts that the
#: worker had then, this one included.
WORKER_LOST = "worker_lost_with"
#: Key in the detail of the error of an attempt that its executor returned before it started.
RETURNED = "returned"


class JobError(msgspec.Struct, array_like=True):
    #: One of ErrorCode.
    code: str
    message: str
    retryable: bool = False
    #: Machine-readable JSON value: pointers, signal names, a traceback.
    detail: Any = None

    @property
    def is_context_lost(self) -> bool:
        """Return whether the attempt's process could no longer use its GPU."""
        return isinstance(self.detail, dict) and bool(self.detail.get(CONTEXT_LOST))

    @property
    def must_run_alone(self) -> bool:
        """Return whether this job must run alone, because it may have broken others next to it."""
        return isinstance(self.detail, dict) and self.detail.get(MUST_RUN_ALONE) is True

    @property
    def worker_lost_with(self) -> int:
        """Return how many attempts the worker had when it ended under this one; 0 if that was not the end."""
        found = self.detail.get(WORKER_LOST) if isinstance(self.detail, dict) else None
        return found if isinstance(found, int) else 0

    @property
    def is_of_returned_attempt(self) -> bool:
        """Return whether the attempt was returned before it started: the job did not fail."""
        return isinstance(self.detail, dict) and self.detail.get(RETURNED) is True


class FileRecord(msgspec.Struct, array_like=True):
    """A file saved by an attempt. `runner.jobs.job_files` says where it lies."""

    id: str
    name: str
    size: int
    sha256: str
    content_type: str
    attempt: int


class AttemptUsage(msgspec.Struct, array_like=True):
    """Device usage of an attempt: a busy executor counts on each of its devices, an idle one does not."""

    #: Seconds of device time, summed over the devices.
    device_s: float = 0.0
    #: Granted bytes times seconds.
    byte_s: float = 0.0


class AttemptRecord(msgspec.Struct, array_like=True):
    """One attempt, as `/jobs/{id}/attempts` shows it."""

    attempt: int
    worker: str
    devices: list[str]
    #: UTC epoch seconds.
    started_at: float
    ended_at: float | None = None
    #: Seconds spent loading for this attempt; None if the executor was warm.
    load_s: float | None = None
    #: Seconds from the start of the handler's code to its end.
    run_s: float | None = None
    #: Peak device memory of the executor during the attempt; None if it was not measured.
    vram_peak_bytes: int | None = None
    error: JobError | None = None
    #: Grant of its executor, on each of the devices.
    granted_bytes: int = 0
    #: None if the attempt occupied no device.
    spent: AttemptUsage | None = None
    #: No other executor was busy on its devices when it started.
    alone: bool = False


class Submission(msgspec.Struct, array_like=True):
    """A client's request, validated and with units resolved; None means "the handler's"."""

    #: UUIDv7 text, made by the front.
    id: str
    handler: str
    #: JSON text of the input.
    input: bytes
    queue: str | None = None
    priority: int | None = None
    timeout_s: float | None = None
    queue_timeout_s: float | None = None
    #: UTC epoch seconds.
    run_at: float | None = None
    delay_s: float | None = None
    retries: int | None = None
    backoff: Backoff | None = None
    vram_bytes: int | None = None
    #: Tags and metadata are stored and can be filtered by; runner does not interpret them.
    tags: list[str] | None = None
    #: JSON object text.
    metadata: bytes | None = None
    tenant: str = ""
    #: Traits of the input, see `traits.InputTraits`; read by the front, which has decoded the input anyway.
    model: str = ""
    size: str = ""
    group: str = ""


class JobTerms(msgspec.Struct, frozen=True, array_like=True):
    """The part of a job that never changes after the submit; options are resolved against the handler's.

    Stored in one packed column; equal terms of several jobs are one object in memory.
    """

    timeout_s: float | None = None
    queue_timeout_s: float | None = None
    retries: int = 0
    backoff: Backoff | None = None
    vram_bytes: int | None = None
    tags: tuple[str, ...] = ()
    #: JSON object text.
    metadata: bytes = b"{}"
    tenant: str = ""
    model: str = ""
    size: str = ""
    group: str = ""


class Job(msgspec.Struct, array_like=True):
    """A job as the coordinator holds it and the store keeps it. Times are UTC epoch seconds.

    The input is stored apart (`WriteBatch.inserts`, `Store.load_payload`): it may be large and is seldom
    read.
    """

    #: Order of acceptance: unique in a store and never reused. Events are stored under it.
    number: int
    id: str
    handler: str
    queue: str
    priority: int
    created_at: float
    terms: JobTerms
    input_bytes: int
    state: State = "queued"
    #: Only reasons that the store must keep: "scheduled" or "retry_backoff" of a queued job, the
    #: error's code of an ended one. Other reasons are derived from memory.
    reason: str | None = None
    #: When it became ready to start, or will.
    ready_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    #: Number of starts so far.
    attempt: int = 0
    #: Failures counted against `retries`.
    failures: int = 0
    #: Attempts during which the executor died.
    deaths: int = 0
    #: Last message number of the current attempt that was applied (see `worker_protocol.AttemptEnded.seq`).
    applied_seq: int = 0
    #: Sequence number of the job's last event.
    last_seq: int = 0
    #: Sequence number of the first event that retention has not removed.
    first_seq: int = 1
    #: JSON text of the latest progress, `{done, total, fraction, message, details}`.
    progress: bytes | None = None
    error: JobError | None = None
    output_bytes: int | None = None
    attempts: list[AttemptRecord] = msgspec.field(default_factory=list)
    files: list[FileRecord] = msgspec.field(default_factory=list)
    #: Why a cancel was requested; set while the job is being cancelled and after.
    cancel_reason: str | None = None
    #: Total usage of all ended attempts; None: none of them occupied a device.
    spent: AttemptUsage | None = None
    #: Step of the OOM escalation since the job ran out of device memory, see gpu.planning.oom_escalation.
    rung: int = 0
    #: Grants with which it ran out of memory, in order; such failures do not count against `retries`.
    ran_out: tuple[int, ...] = ()

    @property
    def start_by(self) -> float | None:
        """Return the time by which the job must start (UTC epoch seconds); None without a queue timeout.

        `queue_timeout_s` covers only the wait for the first start.
        """
        limit = self.terms.queue_timeout_s
        return None if limit is None or self.started_at is not None else self.ready_at + limit

    @property
    def last_failure(self) -> AttemptRecord | None:
        """Return the record of the attempt before, whose `error` is set, while the job waits for its retry.

        None if the job is not queued, or its last attempt did not fail.
        """
        if self.state != "queued":
            return None
        for record in reversed(self.attempts):
            if record.error is None:
                return None
            if not record.error.is_of_returned_attempt:
                return record
        return None
