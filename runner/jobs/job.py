"""Pure: a job, its attempts, and the words for its states."""

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


#: Key in the detail of an error after which the process could not use its GPU any more.
CONTEXT_LOST = "context_lost"
#: Key in the detail of `memory_exceeded`: "grant" or "ram", which of its limits it was over.
EXCEEDED_LIMIT = "limit"
#: Key in the detail of an error that several may have caused: whether this one is to go alone from then on.
MUST_RUN_ALONE = "alone"


class JobError(msgspec.Struct, array_like=True):
    code: str
    message: str
    retryable: bool = False
    #: JSON value for machines: pointers, signal names, a traceback.
    detail: Any = None

    @property
    def is_context_lost(self) -> bool:
        """Whether the attempt's process could not use its GPU any more."""
        return isinstance(self.detail, dict) and bool(self.detail.get(CONTEXT_LOST))

    @property
    def must_run_alone(self) -> bool:
        """Whether the job may have spoiled what ran together with it, and goes alone until that is clear."""
        return isinstance(self.detail, dict) and self.detail.get(MUST_RUN_ALONE) is True


class FileRecord(msgspec.Struct, array_like=True):
    """A file saved by an attempt; it lies at DATA/files/<job id>/<attempt>/<file id>."""

    id: str
    name: str
    size: int
    sha256: str
    content_type: str
    attempt: int


class AttemptUsage(msgspec.Struct, array_like=True):
    """What was used of devices: an executor at work counts on each of its own; one that idles does not."""

    device_s: float = 0.0
    #: Granted bytes times seconds.
    byte_s: float = 0.0


class AttemptRecord(msgspec.Struct, array_like=True):
    """One execution, as `/jobs/{id}/attempts` shows it."""

    attempt: int
    worker: str
    devices: list[str]
    started_at: float
    ended_at: float | None = None
    #: Seconds spent loading for this attempt; None where the executor was warm.
    load_s: float | None = None
    run_s: float | None = None
    vram_peak_bytes: int | None = None
    error: JobError | None = None
    #: What its executor was granted on each of the devices.
    granted_bytes: int = 0
    #: None where it occupies no device.
    spent: AttemptUsage | None = None
    #: It was started with nobody else at work on its devices.
    alone: bool = False


class Submission(msgspec.Struct, array_like=True):
    """What a client asked for, checked and with units resolved; None means "the handler's"."""

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
    tags: list[str] | None = None
    #: JSON object text.
    metadata: bytes | None = None
    tenant: str = ""
    #: What the input says, see `traits.Told`: read by the front, which has it decoded at hand.
    model: str = ""
    size: str = ""
    group: str = ""


class JobTerms(msgspec.Struct, frozen=True, array_like=True):
    """The part of a job that never changes after submit, options resolved against the handler's.

    It is packed into one column; equal terms of many jobs are one object in memory.
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

    The input is kept apart (`Batch.inserts`, `Store.payload`): it may be large and is seldom read.
    """

    #: Order of acceptance, unique in a store, never reused; the key of the events.
    number: int
    id: str
    handler: str
    queue: str
    priority: int
    created_at: float
    terms: JobTerms
    input_bytes: int
    state: State = "queued"
    #: Only what the store must remember: "scheduled" or "retry_backoff" of a queued job, the
    #: error's code of an ended one. The rest is told from memory.
    reason: str | None = None
    ready_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    #: Starts so far.
    attempt: int = 0
    #: Failures counted against `retries`.
    failures: int = 0
    #: Attempts whose executor died under them.
    deaths: int = 0
    #: Last message number of the current attempt that was applied (see wire.Ended.seq).
    applied_seq: int = 0
    #: Sequence number of the job's last event.
    last_seq: int = 0
    #: Sequence number of the first event that retention has left.
    first_seq: int = 1
    #: JSON text of the last progress, `{done, total, fraction, message, details}`.
    progress: bytes | None = None
    error: JobError | None = None
    output_bytes: int | None = None
    attempts: list[AttemptRecord] = msgspec.field(default_factory=list)
    files: list[FileRecord] = msgspec.field(default_factory=list)
    #: Why a cancel was asked for; set while the job is being cancelled and after.
    cancel_reason: str | None = None
    #: What all attempts that have ended used; None: none of them occupied a device.
    spent: AttemptUsage | None = None
    #: How far up it has come since it ran out of device memory, see gpu.planning.oom_escalation.
    rung: int = 0
    #: The grants with which it ran out, in order; they used up none of `retries`.
    ran_out: tuple[int, ...] = ()

    @property
    def start_by(self) -> float | None:
        """The moment until which it has to start: `queue_timeout_s` counts up to the first start."""
        limit = self.terms.queue_timeout_s
        return None if limit is None or self.started_at is not None else self.ready_at + limit
