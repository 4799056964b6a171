"""Pure: every message between a front and the coordinator, over one AF_UNIX stream.

Framed as in `framing`: a length-prefixed msgpack list of encoded messages. A `request_id` pairs a request
with its `Reply`. Bodies are JSON text that the front passes on unchanged.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from runner.handlers.spec import HandlerSpec
from runner.jobs.job import Submission
from runner.jobs.job_query import JobQuery

# Front to coordinator.


class SubmitJobs(msgspec.Struct, array_like=True, tag=1):
    """Accept these jobs.

    With `wait_s` (one job only) the reply is sent when the job has ended, or as 202 after that time. Reply to
    a single job: the job (202, or 200 if it has ended). Reply to `bulk`: 202 and a JSON list with, for each
    job in order, null (accepted as requested) or a problem object.
    """

    request_id: int
    jobs: list[Submission]
    wait_s: float | None = None
    bulk: bool = False


class GetJob(msgspec.Struct, array_like=True, tag=2):
    """Reply: 200 and the job; with `wait_s` once it has ended, or after that time."""

    request_id: int
    job_id: str
    wait_s: float | None = None


class ListJobs(msgspec.Struct, array_like=True, tag=3):
    """Reply: 200 and `{"data": [job], "next_cursor": "..."|null}`."""

    request_id: int
    query: JobQuery


class JobAction(msgspec.Struct, array_like=True, tag=4):
    """Replies: cancel 202 (running) or 200 with the job; retry 202 with the job; delete 204."""

    request_id: int
    action: Literal["cancel", "retry", "delete"]
    job_id: str
    reason: str | None = None
    force: bool = False


class GetDocument(msgspec.Struct, array_like=True, tag=5):
    """Reply: 200 and the JSON document that the route of the same name returns.

    `output`: the output's JSON text. `file` (name = file name): `{"path", "file": FileRecord as an object}`
    with the absolute path. `metrics`: Prometheus text. `ready`: the document of /readyz (200 or 503).
    """

    request_id: int
    document: Literal[
        "explain",
        "attempts",
        "output",
        "file",
        "files",
        "queues",
        "queue",
        "handlers",
        "handler",
        "devices",
        "workers",
        "stats",
        "metrics",
        "ready",
    ]
    #: Job id, queue or handler name, for a document about one of these.
    subject: str | None = None
    name: str | None = None


class SetQueue(msgspec.Struct, array_like=True, tag=6):
    """Reply: 200 and the queue; 404 if there is none and `may_create` is not set."""

    request_id: int
    name: str
    paused: bool
    may_create: bool = False


class AwaitHandler(msgspec.Struct, array_like=True, tag=7):
    """Sent when a submit names a handler that the front does not know.

    Reply: 200 without a body once the handler is described (its `HandlersUpdate` was sent before), or the
    problem.
    """

    request_id: int
    name: str


class ReadEvents(msgspec.Struct, array_like=True, tag=8):
    """Read stored events after a sequence number, up to about `max_bytes` and at least one; 0: none.

    Reply: an `EventPage`, or a problem in a `Reply`.
    """

    request_id: int
    job_id: str
    after: int
    max_bytes: int


class SubscribeEvents(msgspec.Struct, array_like=True, tag=9):
    """From now on, send new events of the job as `JobEvents` when they become durable. No reply."""

    job_id: str


class UnsubscribeEvents(msgspec.Struct, array_like=True, tag=10):
    """Stop sending events of the job. No reply."""

    job_id: str


class ReloadHandlers(msgspec.Struct, array_like=True, tag=13):
    """Find and describe the handlers again.

    Reply: 200 and `coordinator.reload.changes.HandlerChanges` once they are active (all fronts got their
    `HandlersUpdate` before), or 202 while a slow reload continues.
    """

    request_id: int


class SetDevice(msgspec.Struct, array_like=True, tag=14):
    """Change an operator's settings of a device (id or uuid). Reply: 200 and the device."""

    request_id: int
    device: str
    #: True: accept no new work and unload idle executors; False: accept work again; None: unchanged.
    drained: bool | None = None
    #: Limit on concurrent executors. 0: the configured one. None: unchanged.
    max_executors: int | None = None


class LoadHandler(msgspec.Struct, array_like=True, tag=17):
    """Load an executor without a job.

    Reply: 200 once it is loaded, 202 and the reason for the wait after `wait_s`, or a problem if the load
    failed within that time.
    """

    request_id: int
    name: str
    model: str | None = None
    device: str | None = None
    wait_s: float = 0.0


class UnloadHandler(msgspec.Struct, array_like=True, tag=18):
    """Unload executors; busy ones finish their attempts first.

    Reply: 202 and the executors, or 200 if there are none.
    """

    request_id: int
    name: str
    model: str | None = None
    device: str | None = None


class FrontHello(msgspec.Struct, array_like=True, tag=11):
    """The front accepts requests; its first message."""

    pid: int


class Pong(msgspec.Struct, array_like=True, tag=12):
    """Reply to a `Ping`: this front's event loop is running."""


# Coordinator to front.


class Reply(msgspec.Struct, array_like=True, tag=20):
    """The reply to a request; `body` is JSON text (plain text for metrics).

    With status >= 400 it is `{"code", "title", "detail", ...figures}`, which the front turns into a
    problem+json document; `retry_after_s` becomes a header.
    """

    request_id: int
    status: int
    body: bytes = b""
    retry_after_s: float | None = None
    #: Further requests with the same reply: all that await the end of one job.
    other_request_ids: list[int] = msgspec.field(default_factory=list)


class JobWaiting(msgspec.Struct, array_like=True, tag=28):
    """How a queued job waits now, for the `waiting` events of its readers; it is not stored."""

    job_id: str
    #: The last event of the job: this holds until the next one.
    seq: int
    #: UTC epoch seconds.
    at: float
    reason: str | None
    #: The reason in words, with the position and the start as far as they are known.
    message: str
    position: int | None
    #: Seconds from `at` to its start.
    eta_s: float | None


class EventPage(msgspec.Struct, array_like=True, tag=21):
    """The reply to `ReadEvents`."""

    request_id: int
    #: The job as JSON text at the time of this page (with `snapshot`).
    job: bytes
    #: (seq, type, JSON line) of durable events, in order.
    events: list[tuple[int, str, bytes]]
    #: First event that retention has not removed, and the last durable one.
    first_seq: int
    last_seq: int
    #: The job has ended, and `last_seq` is its last event.
    is_job_ended: bool
    #: Set while the job is queued.
    waiting: JobWaiting | None = None


class JobEvents(msgspec.Struct, array_like=True, tag=22):
    """New durable events of a subscribed job.

    If the first seq does not follow the last that the front has received, the front's credit was exhausted:
    it reads the missing events by `ReadEvents`.
    """

    job_id: str
    events: list[tuple[int, str, bytes]]
    #: The last of the events is the `done` of the ended job.
    is_job_ended: bool


class HandlersUpdate(msgspec.Struct, array_like=True, tag=23):
    """All handlers known now; replaces earlier updates. `describing`: more are still being described."""

    specs: list[HandlerSpec]
    describing: bool


class ShutdownBegun(msgspec.Struct, array_like=True, tag=24):
    """A shutdown has begun: refuse new submits with 503 `shutting_down`; streams end within `deadline_s`."""

    deadline_s: float


class Exit(msgspec.Struct, array_like=True, tag=25):
    """Finish pending responses, close streams and exit within 1 s."""


class MemoryLevel(msgspec.Struct, array_like=True, tag=27):
    """Least exact level of memory attribution among all devices; replaces earlier updates."""

    level: Literal["exact", "processes", "reports", "totals"]


class Ping(msgspec.Struct, array_like=True, tag=26):
    """Reply with `Pong`. A front that does not reply in time is hung: it is killed and replaced."""


ToCoordinator = (
    SubmitJobs
    | GetJob
    | ListJobs
    | JobAction
    | GetDocument
    | SetQueue
    | SetDevice
    | AwaitHandler
    | ReloadHandlers
    | LoadHandler
    | UnloadHandler
    | ReadEvents
    | SubscribeEvents
    | UnsubscribeEvents
    | FrontHello
    | Pong
)
ToFront = (
    Reply | EventPage | JobEvents | JobWaiting | HandlersUpdate | MemoryLevel | ShutdownBegun | Exit | Ping
)

to_coordinator_decoder = msgspec.msgpack.Decoder(ToCoordinator)
to_front_decoder = msgspec.msgpack.Decoder(ToFront)
encode = msgspec.msgpack.Encoder().encode
