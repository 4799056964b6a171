"""Pure: a job's events as values, and the follower that reads them across disconnects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from runner.client.http_call import HttpCall, HttpResponse, raise_problem
from runner.errors import NoServer

#: Read timeout, in seconds: the server sends something (at least a ping) every 15 s.
READ_TIMEOUT_S = 45.0
#: Longest outage, in seconds, of a server that has answered before, over all reconnects.
RECONNECT_S = 30.0


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event of a job; the base of all events, and the event of types unknown to this client."""

    type: str
    job_id: str
    #: Number in the job's log, from 1; None for events that are not stored (snapshot, waiting, gap).
    seq: int | None
    #: Time of the event, UTC.
    at: datetime | None
    #: The whole event as it was sent.
    data: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class StatusEvent(JobEvent):
    """The job changed its state or reason."""

    state: str
    reason: str | None = None
    attempt: int = 0
    #: The error of the attempt, where it failed and the job is queued again; None in all other cases.
    error: dict[str, Any] | None = None
    #: How many more failures may be retried; only beside `error`.
    retries_left: int | None = None

    @property
    def retry_in_s(self) -> float | None:
        """Seconds from this event to the earliest start of the retry; None without an `error`."""
        ready_at = self.data.get("ready_at")
        if self.at is None or not isinstance(ready_at, str):
            return None
        return max(0.0, (datetime.fromisoformat(ready_at) - self.at).total_seconds())


@dataclass(frozen=True, slots=True)
class WaitingEvent(JobEvent):
    """How the queued job waits now. It is not stored, and a stream has one only while the job is queued."""

    #: Such as "waiting_for_memory".
    reason: str | None = None
    #: The reason in words, with the position and the start as far as they are known.
    message: str = ""
    #: 1 + how many jobs should start before it; None while nothing is planned for it.
    position: int | None = None
    #: Seconds from `at` to its start, from learned durations; None: unknown.
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class ProgressEvent(JobEvent):
    """Progress of the attempt."""

    done: float | None = None
    total: float | None = None
    #: `done / total`, between 0 and 1; None if the total is unknown.
    fraction: float | None = None
    message: str | None = None
    #: Further values that the handler passed to `ctx.progress`.
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogEvent(JobEvent):
    """Text that the handler wrote; `stream` is stdout, stderr or logging."""

    #: "stdout", "stderr" or "logging"; `level` is set for the last only.
    stream: str = "stdout"
    level: str | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class OutputEvent(JobEvent):
    """One chunk of a streamed output."""

    chunk: Any = None


@dataclass(frozen=True, slots=True)
class MetricEvent(JobEvent):
    """One value that the handler measured."""

    name: str = ""
    value: Any = None


@dataclass(frozen=True, slots=True)
class DoneEvent(JobEvent):
    """The job ended. A large output is omitted here; `result()` fetches it."""

    state: str
    output: Any = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SnapshotEvent(JobEvent):
    """The job as it was when the stream was opened."""

    job: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GapEvent(JobEvent):
    """Events `first` to `last` were removed by retention before they could be sent."""

    first: int | None = None
    last: int | None = None


_FIELDS: dict[str, tuple[type[JobEvent], tuple[str, ...]]] = {
    "status": (StatusEvent, ("state", "reason", "attempt", "error", "retries_left")),
    "waiting": (WaitingEvent, ("reason", "message", "position", "eta_s")),
    "progress": (ProgressEvent, ("done", "total", "fraction", "message", "details")),
    "log": (LogEvent, ("stream", "level", "text")),
    "output": (OutputEvent, ("chunk",)),
    "metric": (MetricEvent, ("name", "value")),
    "done": (DoneEvent, ("state", "output", "error")),
}


def parse_event(kind: str, data: dict[str, Any], seq: int | None, job_id: str) -> JobEvent:
    """Return one event as a value; an unknown type becomes a plain `JobEvent`.

    `kind` and `seq` are the SSE name and id; `job_id` is used if the data does not contain it.
    """
    at = data.get("at")
    moment = datetime.fromisoformat(at) if isinstance(at, str) else None
    job_id = str(data.get("job_id") or data.get("id") or job_id)
    if kind == "snapshot":
        return SnapshotEvent(kind, job_id, seq, moment, data, job=data.get("job") or data)
    if kind == "gap":
        return GapEvent(kind, job_id, seq, moment, data, first=data.get("from"), last=data.get("to"))
    event_class, fields = _FIELDS.get(kind, (JobEvent, ()))
    return event_class(
        kind, job_id, seq, moment, data, **{name: data[name] for name in fields if name in data}
    )


@dataclass(frozen=True, slots=True)
class SseFrame:
    """One server-sent event: its name, data and id, as text."""

    name: str
    data: str
    id: str | None


class SseParser:
    """Splits a byte stream of server-sent events into frames; lines end with LF or CR LF.

    Comments (pings) yield nothing. Bytes of an incomplete frame are kept for the next call.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._lines: list[tuple[str, str]] = []
        #: The last id that the stream has sent, also without an event.
        self.last_id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[SseFrame]:
        """Yield the frames that this chunk completes."""
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for raw in lines:
            line = raw.removesuffix(b"\r").decode("utf-8", "replace")
            if line:
                name, _, value = line.partition(":")
                self._lines.append((name, value.removeprefix(" ")))
            elif self._lines:
                lines_, self._lines = self._lines, []
                data = "\n".join(value for name, value in lines_ if name == "data")
                found = dict(lines_)
                self.last_id = found.get("id", self.last_id)
                if "data" in found:
                    yield SseFrame(found.get("event", "message"), data, found.get("id"))


class EventFollower:
    """Follows one job: builds the next request, filters new events, detects the end of the job.

    Every event is returned once and in order, however often the connection is lost: the next request resumes
    after the last event seen. Does no I/O; `now` is monotonic seconds from the caller.
    """

    #: Seconds before each reconnect; the last one repeats.
    retry_pauses_s: ClassVar[tuple[float, ...]] = (0.1, 0.25, 0.5, 1.0, 2.0)

    def __init__(
        self,
        job_id: str,
        *,
        after: int | Literal["now"] | None,
        types: tuple[str, ...] = (),
        known: bool = False,
    ) -> None:
        self._job_id = job_id
        self._after = None if after == "now" else after
        self._starts_now = after == "now"
        self._types = types
        #: `done` is always requested: without it the end of the job would go unnoticed.
        self._requested_types = (*types, "done") if types and "done" not in types else types
        #: The server has answered before: an outage may be temporary.
        self._known = known
        self._silent_since: float | None = None
        self._failures = 0
        self._has_snapshot = False
        self._ended = False
        self._parser = SseParser()
        self.is_over = False

    def open_call(self) -> HttpCall:
        """Return the request that opens the stream after the last event seen."""
        last_id, self._parser = self._parser.last_id, SseParser()
        if self._after is None and last_id is not None and last_id.isdigit():
            self._after = int(last_id)
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._after is not None:
            headers["Last-Event-ID"] = str(self._after)
        types, params = self._requested_types, dict[str, str]()
        if types:
            params["types"] = ",".join(types)
        if self._starts_now:
            # The header takes precedence once there is one.
            params["after"] = "now"
        path = f"/v1/jobs/{quote(self._job_id, safe='')}/events"
        return HttpCall("GET", path, params=tuple(params.items()), headers=headers, timeout_s=READ_TIMEOUT_S)

    def on_opened(self, status: int) -> bool:
        """Return True if events follow; False for an error, or if the job has ended and nothing is left."""
        if status == 204:
            self.is_over = True
        return status == 200

    def on_refused(self, answer: HttpResponse, now: float) -> float:
        """Return the seconds to wait before reconnecting; raise the response's error if that can't help."""
        if answer.status != 503 or not self._known:
            raise_problem(answer)
        return self.on_failed(NoServer("the server is not available"), now)

    def feed(self, chunk: bytes) -> Iterator[JobEvent]:
        """Yield the new events that these bytes complete."""
        self._known, self._failures, self._silent_since = True, 0, None
        for frame in self._parser.feed(chunk):
            seq = int(frame.id) if frame.id and frame.id.isdigit() else None
            if seq is not None:
                if self._after is not None and seq <= self._after:
                    continue
                self._after = seq
            elif frame.name == "snapshot":
                if self._has_snapshot:
                    continue
                self._has_snapshot = True
            self._ended = frame.name == "done" if seq is not None else self._ended
            if frame.name != "done" or not self._types or "done" in self._types:
                yield parse_event(frame.name, json.loads(frame.data), seq, self._job_id)

    def on_closed(self) -> float:
        """Handle an orderly close: the end after `done`, else return the seconds before reconnecting."""
        self.is_over = self._ended
        return self.retry_pauses_s[0]

    def on_failed(self, error: NoServer, now: float) -> float:
        """Return the seconds to wait before reconnecting.

        Raise `error` after RECONNECT_S without an answer.
        """
        if self._silent_since is None:
            self._silent_since = now
        if not self._known or now - self._silent_since > RECONNECT_S:
            raise error
        pause = self.retry_pauses_s[min(self._failures, len(self.retry_pauses_s) - 1)]
        self._failures += 1
        return pause
