"""Pure: a history as it is stored, one JSON document a line, and as the rules read it: job by job.

Each line is one of these; times are seconds of the machine's monotonic clock, `status` is null where no
answer came, so that nobody knows whether the call had an effect:

- `submit`: `tag`, `start`, `end`, `status`, `job` and `view` where it was accepted;
- `get`, `cancel`, `retry`, `delete`: `job`, `start`, `end`, `status`, `view`;
- `list`: `path`, `start`, `end`, `status`, `views`;
- `attempts`: `job`, `start`, `end`, `status`, `attempts` of `[number, started_at, ended_at]`;
- `stream`: `job`, `after`, `start`, `end`, `status`, `how` (`closed` by the server in order, `cut`, `left` by
  the reader) and `events` of `[name, id, digest, facts]`;
- `execution`: `job`, `attempt`, `start`, `end` (null: killed), `waited_s`;
- `fault`: `what`, `start`, `end`;
- `complete`: every job was given the time to end and was looked at.

A view is what an answer showed of a job: `job`, `tag`, `state`, `attempt`, `code`, `digest` of the output and
`parts`, `[key, job, attempt]` as each part of the output names them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

ENDED = frozenset({"succeeded", "failed", "cancelled"})
NEVER = float("inf")


class BadHistory(Exception):
    """A line of a history can't be read."""


@dataclass(frozen=True, slots=True)
class View:
    """What one answer showed of a job."""

    job: str
    tag: str
    state: str
    attempt: int
    code: str | None = None
    #: Of the output; None where there is none, or where it is left out as too long.
    digest: str | None = None
    #: Submit's key, job and attempt that each part of the output names.
    parts: tuple[tuple[str, str, int], ...] = ()

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def age(self) -> tuple[int, bool]:
        """Grows as the job goes on. An attempt that is recalled before its start waits and runs again."""
        return self.attempt, self.has_ended


@dataclass(frozen=True, slots=True)
class Call:
    """One request and its answer."""

    kind: str
    start: float
    end: float
    status: int | None
    job: str = ""
    tag: str = ""
    path: str = ""
    view: View | None = None
    views: tuple[View, ...] = ()
    #: Number, start and end of each attempt that was told, the times as text.
    attempts: tuple[tuple[int, str | None, str | None], ...] = ()

    @property
    def is_done(self) -> bool:
        """The server said that it did it."""
        return self.status is not None and self.status < 300

    @property
    def is_unsure(self) -> bool:
        """It may have been done, now or later: no answer came, or one that leaves it open."""
        return self.status is None or self.status >= 500


@dataclass(frozen=True, slots=True)
class StreamEvent:
    name: str
    #: None: it is not stored.
    id: int | None
    digest: str
    #: What rules read: state and attempt of `status` and `done`, from and to of `gap`.
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """One connection to a job's stream."""

    job: str
    #: The id behind which it was to begin.
    after: int | None
    start: float
    end: float
    status: int | None
    how: str = "closed"
    events: tuple[StreamEvent, ...] = ()

    @property
    def ids(self) -> list[int]:
        return [event.id for event in self.events if event.id is not None]

    @property
    def is_whole(self) -> bool:
        """The server closed it behind the end of the job."""
        return self.how == "closed" and bool(self.events) and self.events[-1].name == "done"


@dataclass(frozen=True, slots=True)
class Execution:
    """User code ran for an attempt."""

    job: str
    attempt: int
    start: float
    #: None: it was killed.
    end: float | None = None
    #: How long it waited at its start until no earlier execution of its job was alive.
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to the server."""

    what: str
    start: float
    end: float


@dataclass(slots=True)
class JobHistory:
    """All that was recorded of one job, in the order of the starts."""

    job: str
    submit: Call | None = None
    calls: list[Call] = field(default_factory=list)
    #: Each view with the call that showed it, those of lists included.
    views: list[tuple[Call, View]] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)

    def of(self, kind: str) -> list[Call]:
        return [call for call in self.calls if call.kind == kind]

    @property
    def deleted_from(self) -> float:
        """From when on the job may be gone: the start of the first delete that may have been done."""
        deletes = [call.start for call in self.of("delete") if call.is_done or call.is_unsure]
        return min(deletes, default=NEVER)

    @property
    def gone_from(self) -> float:
        """From when on the job must be gone: the end of the first delete that was done."""
        return min((call.end for call in self.of("delete") if call.is_done), default=NEVER)

    @property
    def retries(self) -> list[tuple[float, float]]:
        """When each retry may have been done; one without an answer at any time after its start."""
        return [
            (call.start, NEVER if call.is_unsure else call.end)
            for call in self.of("retry")
            if call.is_done or call.is_unsure
        ]


@dataclass(slots=True)
class History:
    """All of it."""

    submits: list[Call] = field(default_factory=list)
    lists: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    jobs: dict[str, JobHistory] = field(default_factory=dict)
    #: Jobs were given the time to end, and each was looked at afterwards.
    is_complete: bool = False
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def job(self, job_id: str) -> JobHistory:
        return self.jobs.setdefault(job_id, JobHistory(job_id))

    def coordinator_died(self, first: float, second: float) -> bool:
        """Whether the coordinator was killed between two moments."""
        return any(
            fault.what in ("kill coordinator", "kill everything")
            and first <= fault.end
            and fault.start <= second
            for fault in self.faults
        )


def read_history(lines: Iterable[str]) -> History:
    """Read a stored history. Raises BadHistory with the number of the line."""
    history = History()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            records.append((record.get("start", 0.0), record))
        except (ValueError, AttributeError) as error:
            raise BadHistory(f"line {number} is no record: {error}") from error
    for number, (_, record) in enumerate(sorted(records, key=lambda each: each[0]), 1):
        try:
            _add(history, dict(record))
        except (KeyError, TypeError, ValueError) as error:
            raise BadHistory(f"record {number} by time, {record}: {error!r}") from error
    return history


def _add(history: History, record: dict[str, Any]) -> None:
    kind = record.pop("call")
    history.counts[kind] += 1
    match kind:
        case "complete":
            history.is_complete = True
        case "fault":
            history.faults.append(Fault(record["what"], record["start"], record["end"]))
        case "execution":
            history.job(record["job"]).executions.append(Execution(**record))
        case "stream":
            events = tuple(StreamEvent(*event) for event in record.pop("events", ()))
            history.counts["event"] += len(events)
            history.job(record["job"]).streams.append(Stream(**record, events=events))
        case "submit" | "get" | "cancel" | "retry" | "delete" | "list" | "attempts":
            _add_call(history, _read_call(kind, record))
        case _:
            raise ValueError(f"{kind} is no kind of record")


def _read_call(kind: str, record: dict[str, Any]) -> Call:
    view = record.pop("view", None)
    return Call(
        kind,
        record.pop("start"),
        record.pop("end"),
        record.pop("status"),
        view=None if view is None else _read_view(view),
        views=tuple(_read_view(each) for each in record.pop("views", ())),
        attempts=tuple((number, began, ended) for number, began, ended in record.pop("attempts", ())),
        **record,
    )


def _read_view(record: dict[str, Any]) -> View:
    parts = tuple((key, job, attempt) for key, job, attempt in record.pop("parts", ()))
    return View(**record, parts=parts)


def _add_call(history: History, call: Call) -> None:
    if call.kind == "submit":
        history.submits.append(call)
        if call.is_done and call.job:
            history.job(call.job).submit = call
    elif call.kind == "list":
        history.lists.append(call)
    elif call.job:
        history.job(call.job).calls.append(call)
    for view in (*call.views, *([call.view] if call.view is not None else [])):
        history.job(view.job).views.append((call, view))
