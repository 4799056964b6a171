"""Pure: the shapes of what goes in and comes out, as the OpenAPI document shows them.

Requests are checked by `api.http.submission` and `api.http.query_params`, which are many times faster than
models; a test holds these models to them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.openapi.base_models import RequestModel, ResponseModel
from api.openapi.stats_schema import Percentiles, Stats
from runner.formats.names import NAME_PATTERN
from runner.formats.units import SECONDS_MAX
from runner.handlers.spec import HandlerKind
from runner.jobs.job import ErrorCode, State

Level = Literal["exact", "processes", "reports", "totals"]
#: 1 to 200 characters, none of them one of `runner.jobs.traits.CONTROL_CHARACTER`.
TAG = r"^[^\u0000-\u001f\u007f]{1,200}$"


class BackoffCurve(RequestModel):
    """Waits between attempts; `jitter` 0.2 spreads them by up to 20 % either way."""

    kind: Literal["fixed", "linear", "exponential"] = "exponential"
    base_s: float = Field(1.0, ge=0, le=SECONDS_MAX)
    max_s: float = Field(600.0, ge=0, le=SECONDS_MAX)
    jitter: float = Field(0.2, ge=0, le=1)


class SubmitOptions(RequestModel):
    """What may be asked for a job, beside its input; what is left out is the handler's own."""

    queue: str | None = Field(None, pattern=NAME_PATTERN)
    priority: int | Literal["critical", "high", "normal", "low"] | None = Field(
        None, description="0 to 100, higher first; critical, high, normal, low are 90, 70, 50, 30"
    )
    timeout_s: float | str | None = Field(None, description='longest run: seconds, "30s", "5m"')
    queue_timeout_s: float | str | None = Field(None, description="longest wait before the start")
    run_at: datetime | None = Field(
        None, description="not before this time, at most ten years ahead; not beside delay_s"
    )
    delay_s: float | str | None = Field(None, description="not before so much time has passed")
    retries: int | None = Field(None, ge=0, le=1000)
    backoff: float | str | list[float | str] | BackoffCurve | None = Field(
        None, description="seconds, a list of seconds (the last repeats), or a curve"
    )
    vram: int | str | None = Field(None, description='peak device memory: bytes or "6GiB"')
    tenant: str | None = Field(
        None,
        pattern=NAME_PATTERN,
        description="for whom it is: devices are shared between tenants by their weights",
    )
    tags: list[Annotated[str, Field(pattern=TAG)]] | None = Field(None, max_length=100)
    metadata: dict[str, Any] | None = None


class HandlerJobRequest(SubmitOptions):
    """A job for the handler that the path names."""

    input: Any = None


class JobRequest(HandlerJobRequest):
    """A job."""

    handler: str = Field(pattern=NAME_PATTERN)


class BulkRequest(RequestModel):
    """Many jobs at once."""

    jobs: list[JobRequest] = Field(max_length=10_000)


class TicketRequest(RequestModel):
    """Which stream the ticket is for; without a job, for all."""

    job_id: str | None = Field(None, pattern=r"^[0-9a-f-]{36}$")


class Ticket(ResponseModel):
    """Opens a stream to those who can't send the token, until it expires."""

    ticket: str
    expires_at: datetime
    url: str | None = Field(description="the job's stream with the ticket in it; null without a job")


class CancelRequest(RequestModel):
    """How to end a job; may be left out."""

    reason: str | None = Field(None, max_length=1000)
    force: bool | None = Field(None, description="kill at once instead of asking the handler to stop")


class DeviceChange(RequestModel):
    """What is to hold for a device, also after a restart."""

    max_executors: int | None = Field(
        ge=1, le=1000, description="executors that load or run there at once; null: what the settings say"
    )


class Fault(ResponseModel):
    """One thing that is wrong with a request."""

    pointer: str = Field(description="JSON pointer into the request; empty: the whole body")
    message: str


class Problem(ResponseModel):
    """RFC 9457: what went wrong; `code` is the stable word to test."""

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
    """The last progress that the handler told."""

    done: float | None = None
    total: float | None = None
    fraction: float | None = None
    message: str | None = None
    details: dict[str, Any] | None = None


class Job(ResponseModel):
    """A job."""

    id: str
    handler: str
    queue: str
    state: State
    reason: str | None
    priority: int
    input: Any
    input_bytes: int = Field(description="a list leaves out an input or output of more than 64 KiB")
    output: Any
    output_bytes: int | None
    error: JobFailure | None
    progress: Progress | None
    attempt: int = Field(description="starts so far")
    retries_left: int
    vram_bytes: int | None
    devices: list[str]
    device_s: float = Field(description="seconds of devices that its ended attempts used")
    byte_s: float = Field(description="the same times the bytes that were granted")
    run_id: str | None
    tenant: str | None
    tags: list[str]
    metadata: dict[str, Any]
    created_at: datetime
    ready_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    urls: dict[str, str]


class JobPage(ResponseModel):
    """One page of jobs."""

    data: list[Job]
    next_cursor: str | None


class AcceptedJob(ResponseModel):
    """A job of a bulk request that was accepted."""

    id: str
    handler: str
    queue: str
    state: Literal["queued"]
    urls: dict[str, str]


class BulkAnswer(ResponseModel):
    """What became of each job, in order."""

    jobs: list[AcceptedJob | Problem]


class Attempt(ResponseModel):
    """One execution."""

    attempt: int
    worker: str
    devices: list[str]
    started_at: datetime
    ended_at: datetime | None
    load_s: float | None
    run_s: float | None
    vram_peak_bytes: int | None
    granted_bytes: int = Field(description="on each of its devices")
    alone: bool = Field(description="started with nobody else at work there")
    device_s: float
    byte_s: float
    error: JobFailure | None


class AttemptList(ResponseModel):
    """All executions of a job."""

    data: list[Attempt]


class Explanation(ResponseModel):
    """Why a job waits, with the figures that decided it."""

    id: str
    state: State
    reason: str | None


class Queue(ResponseModel):
    """A named line of jobs."""

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
    granted_bytes: int = Field(description="on each of its devices")
    resident_bytes: int | None = Field(description="what it was seen to use")
    charged_bytes: int = Field(description="what counts as its own: the grant, or its use where that is more")
    jobs: list[str] = Field(description="ids of the jobs that it has")
    jobs_done: int


class HandlerFigures(ResponseModel):
    """Times of a handler's last attempts."""

    run_s: Percentiles
    wait_s: Percentiles
    load_s: Percentiles
    runs: int


class Handler(ResponseModel):
    """A handler: what it takes, needs and was measured at."""

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
    executors: list[Executor] = Field(description="where it is loaded")
    waiting: list[dict[str, Any]] = Field(description="loads without a job that wait for room")
    load_failures: list[dict[str, Any]] = Field(description="loads without a job that failed")
    preload_suspended: list[str | None] = Field(
        description="models that are not preloaded any more because loads failed; null: the handler has none"
    )
    learned: list[dict[str, Any]] = Field(description="estimates by model and size, the latest first")
    figures: HandlerFigures


class HandlerList(ResponseModel):
    """All handlers."""

    data: list[Handler]
    describing: bool = Field(description="more are being described")


class HandlerChanges(ResponseModel):
    """What a reload has made of the handlers: each name stands in one list."""

    added: list[str]
    changed: list[str] = Field(description="their code or options are others, or they were broken")
    removed: list[str]
    broken: list[str] = Field(description="all that can't be used now")
    unchanged: list[str]
    describing: bool = Field(description="it takes long and goes on; the lists are still empty")


class DeviceEvent(ResponseModel):
    """Something that happened to a device."""

    at: datetime
    type: str = Field(description="drained, resumed, max_executors, worker_ready, worker_lost, ...")
    message: str


class LoadRequest(RequestModel):
    """Which executors are meant; may be left out."""

    model: str | None = Field(None, description="of a handler with `model_by`; of others there is none")
    device: str | None = Field(None, description="only this one, by its id")


class LoadAnswer(ResponseModel):
    """How far it is."""

    handler: str
    model: str | None
    device: str | None
    state: Literal["loaded", "loading", "waiting"]
    executor: dict[str, Any] | None
    message: str | None = Field(None, description="what it waits for, in words")


class UnloadAnswer(ResponseModel):
    """Which executors go."""

    handler: str
    model: str | None
    device: str | None
    executors: list[dict[str, Any]] = Field(description="`jobs` are those that they end first")


class DeviceCondition(ResponseModel):
    """How a device is, and since when."""

    state: Literal["ok", "suspect", "quarantined", "lost", "unknown"]
    since: datetime
    message: str


class Device(ResponseModel):
    """A device and who has its bytes."""

    id: str
    uuid: str
    kind: Literal["nvidia", "sim", "cpu"]
    name: str
    total_bytes: int
    used_bytes: int = Field(description="as the device itself tells, whoever it is that uses them")
    free_bytes: int = Field(description="what may still be promised")
    reserved_bytes: int = Field(description="charged to executors that live")
    draining_bytes: int = Field(
        description="charged to executors that ended, until the device shows them free"
    )
    suspect_bytes: int = Field(description="the part of draining_bytes that is overdue")
    foreign_bytes: int = Field(description="what other programs had at most in the last half minute")
    headroom_bytes: int = Field(description="never promised")
    short_bytes: int = Field(description="what others took of what was promised; the total is less by these")
    level: Level = Field(description="how much is known of who uses what")
    context_bytes: int | None = Field(
        description="what every process takes before its first tensor; measured"
    )
    max_executors: int
    drained: bool = Field(description="it takes no new work because the operator said so")
    health: str = Field(description="ok, or what keeps new work away from it")
    condition: DeviceCondition
    events: list[DeviceEvent] = Field(description="what happened to it since the start, the latest last")
    worker: str | None = Field(description="its worker process; null where none runs")
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
    """The front answers."""

    status: Literal["ok"]
    level: Level | None = Field(
        None, description="how much is known of who uses the devices' memory, the least of all"
    )


class Readiness(ResponseModel):
    """Whether work is taken; `degraded` names the parts that are not well."""

    status: Literal["ok", "degraded"]
    parts: dict[str, Any]


MODELS: tuple[type[BaseModel], ...] = (
    HandlerJobRequest, JobRequest, BulkRequest, CancelRequest, DeviceChange, TicketRequest, Ticket, Problem,
    Job, JobPage, BulkAnswer, AttemptList, Explanation, Queue, QueueList, Handler, HandlerList,
    HandlerChanges, LoadRequest, LoadAnswer, UnloadAnswer, Device, DeviceList, WorkerList,
    Stats, Health, Readiness,
)  # fmt: skip
