"""Pure: the models of requests and responses for the OpenAPI document.

Requests are checked by `api.http.submission` and `api.http.query_params`, which are many times faster than
models; a test keeps both in agreement.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.openapi.base_models import RequestModel, ResponseModel
from api.openapi.stats_schema import Percentiles, Stats
from runner.bounds import (
    BULK_MAX,
    BYTES_MAX,
    EXECUTORS_MAX,
    NAME_CHARS_MAX,
    PRIORITY_MAX,
    REASON_CHARS_MAX,
    RETRIES_MAX,
    SECONDS_MAX,
    STEPS_MAX,
    TAGS_MAX,
    VALUE_CHARS_MAX,
)
from runner.formats.names import NAME_PATTERN
from runner.handlers.spec import HandlerKind
from runner.jobs.job import ErrorCode, State

Level = Literal["exact", "processes", "reports", "totals"]
#: 1 to 200 characters, none of them one of `runner.jobs.traits.CONTROL_CHARACTER`.
TAG = r"^[^\u0000-\u001f\u007f]{1,200}$"


#: A duration, a size or the like as text: "30s", "6GiB".
ShortText = Annotated[str, Field(max_length=VALUE_CHARS_MAX)]
Seconds = Annotated[float, Field(ge=0, le=SECONDS_MAX)]
PositiveSeconds = Annotated[float, Field(gt=0, le=SECONDS_MAX)]
Priority = Annotated[int, Field(ge=0, le=PRIORITY_MAX)]
Bytes = Annotated[int, Field(gt=0, le=BYTES_MAX)]
Steps = Annotated[list[Seconds | ShortText], Field(max_length=STEPS_MAX)]


class BackoffCurve(RequestModel):
    """Delays between attempts; `jitter` 0.2 varies them by up to 20 % either way."""

    kind: Literal["fixed", "linear", "exponential"] = "exponential"
    base_s: Seconds = 1.0
    max_s: Seconds = 600.0
    jitter: float = Field(0.2, ge=0, le=1)


class SubmitOptions(RequestModel):
    """Options of a job besides its input; options that are left out are the handler's own."""

    queue: str | None = Field(None, pattern=NAME_PATTERN)
    priority: Priority | Literal["critical", "high", "normal", "low"] | None = Field(
        None, description="0 to 100, higher first; critical, high, normal, low are 90, 70, 50, 30"
    )
    timeout_s: PositiveSeconds | ShortText | None = Field(
        None, description='timeout of one run: seconds, "30s", "5m"'
    )
    queue_timeout_s: PositiveSeconds | ShortText | None = Field(
        None, description="timeout of the wait before the first start"
    )
    run_at: datetime | None = Field(
        None, description="earliest start, at most ten years ahead; cannot be combined with delay_s"
    )
    delay_s: Seconds | ShortText | None = Field(None, description="delay before the earliest start")
    retries: int | None = Field(None, ge=0, le=RETRIES_MAX)
    backoff: Seconds | ShortText | Steps | BackoffCurve | None = Field(
        None,
        description="delay before retries: seconds, a list of seconds (the last one repeats), or a curve",
    )
    vram: Bytes | ShortText | None = Field(None, description='peak device memory: bytes or "6GiB"')
    tenant: str | None = Field(
        None,
        pattern=NAME_PATTERN,
        description="tenant of the job; tenants share devices by weight",
    )
    tags: list[Annotated[str, Field(pattern=TAG)]] | None = Field(None, max_length=TAGS_MAX)
    metadata: dict[str, Any] | None = None


class HandlerJobRequest(SubmitOptions):
    """A job for the handler named by the path."""

    input: Any = None


class JobRequest(HandlerJobRequest):
    """A job to submit."""

    handler: str = Field(pattern=NAME_PATTERN)


class BulkRequest(RequestModel):
    """Several jobs to submit at once."""

    jobs: list[JobRequest] = Field(max_length=BULK_MAX)


class TicketRequest(RequestModel):
    """The stream that the ticket is for; without a job, all streams."""

    job_id: str | None = Field(None, pattern=r"^[0-9a-f-]{36}$")


class Ticket(ResponseModel):
    """A short-lived substitute for the token in the URL of a stream."""

    ticket: str
    expires_at: datetime
    url: str | None = Field(description="URL of the job's stream including the ticket; null without a job")


class CancelRequest(RequestModel):
    """How to cancel a job; optional."""

    reason: str | None = Field(None, max_length=REASON_CHARS_MAX)
    force: bool | None = Field(None, description="kill the job at once instead of asking the handler to stop")


class QueueChange(RequestModel):
    """Settings of a queue, which survive restarts of the server."""

    paused: bool = Field(description="whether the queue starts no jobs")


class DeviceChange(RequestModel):
    """Settings of a device, which survive restarts of the server."""

    max_executors: int | None = Field(
        ge=1, le=EXECUTORS_MAX, description="limit on executors that load or run at once; null: as configured"
    )


class Fault(ResponseModel):
    """One invalid part of a request."""

    pointer: str = Field(description="JSON pointer into the request; empty: the whole body")
    message: str


class Problem(ResponseModel):
    """An RFC 9457 problem; `code` is stable, for programs to test."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[Fault] | None = None


class JobFailure(ResponseModel):
    """Why a job did not succeed."""

    code: ErrorCode
    message: str
    retryable: bool = False
    detail: Any = None


class Progress(ResponseModel):
    """The latest progress reported by the handler."""

    done: float | None = None
    total: float | None = None
    fraction: float | None = None
    message: str | None = None
    details: dict[str, Any] | None = None


class Job(ResponseModel):
    """A job and its current state."""

    id: str
    handler: str
    queue: str
    state: State
    reason: str | None
    position: int | None = Field(
        description="1 + how many jobs should start before it; null unless queued, and in lists"
    )
    eta_s: float | None = Field(
        description="seconds to its start, from learned durations; null where unknown, and as position"
    )
    priority: int
    input: Any
    input_bytes: int = Field(description="lists omit an input or output of more than 64 KiB")
    output: Any
    output_bytes: int | None
    error: JobFailure | None
    last_error: JobFailure | None = Field(
        description="error of the attempt before, while the job waits for its retry"
    )
    progress: Progress | None
    attempt: int = Field(description="number of starts so far")
    retries_left: int
    vram_bytes: int | None
    devices: list[str]
    device_s: float = Field(description="device seconds used by its ended attempts")
    byte_s: float = Field(description="granted bytes times device seconds")
    run_id: str | None
    tenant: str | None
    tags: list[str]
    metadata: dict[str, Any]
    created_at: datetime
    ready_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    urls: dict[str, str]
    warnings: list[str] | None = Field(None, description="in the answer to a submit: fields without effect")


class JobPage(ResponseModel):
    """One page of a list of jobs.

    `damaged` names the jobs between those of the page whose rows can't be read; it is left out without any.
    """

    data: list[Job]
    next_cursor: str | None
    damaged: list[str] | None = None


class AcceptedJob(ResponseModel):
    """An accepted job of a bulk request."""

    id: str
    handler: str
    queue: str
    state: Literal["queued"]
    urls: dict[str, str]
    warnings: list[str] | None = Field(None, description="fields without effect")


class BulkAnswer(ResponseModel):
    """The result for each job, in order: accepted, or the problem."""

    jobs: list[AcceptedJob | Problem]


class Attempt(ResponseModel):
    """One attempt to run a job."""

    attempt: int
    worker: str
    devices: list[str]
    started_at: datetime
    ended_at: datetime | None
    load_s: float | None
    run_s: float | None
    vram_peak_bytes: int | None
    granted_bytes: int = Field(description="grant on each of its devices")
    alone: bool = Field(description="no other executor was busy on its devices when it started")
    device_s: float
    byte_s: float
    error: JobFailure | None


class AttemptList(ResponseModel):
    """All attempts of a job."""

    data: list[Attempt]


class FileReference(ResponseModel):
    """A file that a job has saved, as outputs contain it."""

    file: str = Field(alias="$file", description="the file's id")
    id: str
    name: str
    size: int = Field(description="bytes")
    sha256: str = Field(description="in hexadecimal")
    content_type: str
    url: str = Field(description="path of the bytes on this server")


class FileList(ResponseModel):
    """All files of a job."""

    data: list[FileReference]


class Explanation(ResponseModel):
    """Why a job waits, with the figures behind it."""

    id: str
    state: State
    reason: str | None
    message: str = Field(description="why it waits, where it runs or how it ended, in words")
    last_error: JobFailure | None = Field(
        None, description="error of the attempt before, while the job waits for its retry"
    )
    position: int | None = Field(None, description="as in the job")
    eta_s: float | None = Field(None, description="as in the job")


class Queue(ResponseModel):
    """A queue with its counts."""

    name: str
    counts: dict[State, int]
    reasons: dict[str, int]
    paused: bool
    concurrency: int | None
    rate: None = Field(description="no queue has a rate limit in this version")
    oldest_wait_s: float | None
    running: int
    peak_running: int
    success_rate: float | None
    avg_run_s: float | None


class QueueList(ResponseModel):
    """All queues."""

    data: list[Queue]


class Executor(ResponseModel):
    """A process that has a handler loaded."""

    id: int
    handler: str
    version: str
    model: str | None
    state: str
    worker: str
    devices: list[str]
    granted_bytes: int = Field(description="grant on each of its devices")
    resident_bytes: int | None = Field(description="memory in use when last measured")
    charged_bytes: int = Field(description="bytes charged to it: the grant, or its use if that is more")
    jobs: list[str] = Field(description="ids of its current jobs")
    jobs_done: int


class HandlerFigures(ResponseModel):
    """Times of a handler's latest attempts."""

    run_s: Percentiles
    wait_s: Percentiles
    load_s: Percentiles
    runs: int


class Handler(ResponseModel):
    """A handler: schemas, options and measured figures."""

    name: str
    state: Literal["ok", "describing", "broken"]
    version: str
    kind: HandlerKind
    description: str
    source: str = Field(description="the file or module that defines it")
    error: str | None
    input_schema: Any
    output_schema: Any
    options: dict[str, Any]
    executors: list[Executor] = Field(description="executors that have it loaded")
    waiting: list[dict[str, Any]] = Field(description="prewarms and preloads that wait for capacity")
    load_failures: list[dict[str, Any]] = Field(description="prewarms and preloads that failed")
    preload_suspended: list[str | None] = Field(
        description="models whose preload is suspended after failed loads; null: the handler has no models"
    )
    pin_refused: str | None = Field(
        description="why its next executor could not be pinned, though `keep_alive` is -1"
    )
    learned: list[dict[str, Any]] = Field(description="estimates by model and size, latest first")
    figures: HandlerFigures


class HandlerList(ResponseModel):
    """All handlers."""

    data: list[Handler]
    describing: bool = Field(description="more handlers are still being described")
    importing: list[str] = Field(description="the sources that are still being imported")


class HandlerChanges(ResponseModel):
    """The changes of a reload; every name is in exactly one list."""

    added: list[str]
    changed: list[str] = Field(description="other code or options than before, or no longer broken")
    removed: list[str]
    broken: list[str] = Field(description="all handlers that can't be used now")
    unchanged: list[str]
    describing: bool = Field(description="the reload is still in progress; the lists are empty")


class DeviceEvent(ResponseModel):
    """Something that happened to a device."""

    at: datetime
    type: str = Field(
        description="drained, resumed, max_executors, host_memory, worker_ready, worker_lost, ..."
    )
    message: str


class LoadRequest(RequestModel):
    """Which executors to load or unload; optional."""

    model: str | None = Field(
        None, max_length=NAME_CHARS_MAX, description="the model, for a handler with `model_by`"
    )
    device: str | None = Field(None, description="only on the device with this id")


class LoadAnswer(ResponseModel):
    """The state of the load."""

    handler: str
    model: str | None
    device: str | None
    state: Literal["loaded", "loading", "waiting"]
    executor: dict[str, Any] | None
    message: str | None = Field(None, description="why it waits, in words")


class UnloadAnswer(ResponseModel):
    """The executors being unloaded."""

    handler: str
    model: str | None
    device: str | None
    executors: list[dict[str, Any]] = Field(description="`jobs` are those that they finish first")


class DeviceCondition(ResponseModel):
    """The health of a device, and since when."""

    state: Literal["ok", "suspect", "quarantined", "lost", "unknown"]
    since: datetime
    message: str


class Device(ResponseModel):
    """A device: memory, health and executors."""

    id: str
    uuid: str
    kind: Literal["nvidia", "sim", "cpu"]
    name: str
    total_bytes: int
    used_bytes: int = Field(description="as reported by the device, for all programs")
    free_bytes: int = Field(description="bytes that can still be granted")
    reserved_bytes: int = Field(description="charged to executors that are alive")
    draining_bytes: int = Field(
        description="charged to ended executors until the device reports them as free"
    )
    suspect_bytes: int = Field(description="overdue part of draining_bytes")
    foreign_bytes: int = Field(description="peak use of other programs in the last 30 s")
    headroom_bytes: int = Field(description="never granted")
    short_bytes: int = Field(
        description="granted bytes taken by other programs; the other figures exceed total_bytes by these"
    )
    level: Level = Field(description="level of memory attribution")
    context_bytes: int | None = Field(
        description="measured bytes that every process uses before its first tensor"
    )
    max_executors: int = Field(description="limit on executors that load or run at once")
    max_resident: int = Field(description="limit on all executors, idle ones included")
    drained: bool = Field(description="drained by the operator: it gets no new work")
    health: str = Field(description="ok, or why it gets no new work")
    condition: DeviceCondition
    events: list[DeviceEvent] = Field(description="events since the start of the server, oldest first")
    worker: str | None = Field(description="its worker process; null if none is running")
    executors: list[Executor]


class DeviceList(ResponseModel):
    """All devices."""

    data: list[Device]


class Worker(ResponseModel):
    """A worker process."""

    name: str
    pid: int | None
    role: str
    device: str | None
    state: Literal["ok", "starting"]
    executors: list[Executor]


class WorkerList(ResponseModel):
    """All worker processes."""

    data: list[Worker]


class Health(ResponseModel):
    """The front is running."""

    status: Literal["ok"]
    level: Level | None = Field(None, description="least exact level of memory attribution among all devices")


class Readiness(ResponseModel):
    """Whether jobs are accepted; `degraded` names the parts with a problem."""

    status: Literal["ok", "degraded"]
    parts: dict[str, Any]


MODELS: tuple[type[BaseModel], ...] = (
    HandlerJobRequest, JobRequest, BulkRequest, CancelRequest, QueueChange, DeviceChange, TicketRequest,
    Ticket, Problem,
    Job, JobPage, BulkAnswer, AttemptList, FileList, Explanation, Queue, QueueList, Handler, HandlerList,
    HandlerChanges, LoadRequest, LoadAnswer, UnloadAnswer, Device, DeviceList, WorkerList,
    Stats, Health, Readiness,
)  # fmt: skip
