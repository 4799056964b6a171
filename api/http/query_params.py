"""Pure: parses query strings and the `Prefer` header strictly."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

import msgspec
from starlette.requests import Request

from api.http.problems import Fault, fault, raise_invalid
from api.http.submission import NOT_SUPPORTED, parse_name
from runner.formats.timestamps import parse_rfc3339
from runner.jobs import cursor
from runner.jobs.event import EVENT_TYPES
from runner.jobs.job import ErrorCode, QueuedReason, RunningReason, State
from runner.jobs.job_query import JobQuery

WAIT_MAX_S = 300
SEQ_MAX = 2**63 - 1
STATES: tuple[str, ...] = get_args(State)
REASONS: tuple[str, ...] = (*get_args(QueuedReason), *get_args(RunningReason), *get_args(ErrorCode))
#: Query parameters of the documented interface that this version does not support yet.
_UNSUPPORTED = frozenset({"run_id"})
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)


def allow_query(request: Request, *names: str) -> None:
    """Raise ValidationFailed for query parameters that the route does not have."""
    if not request.scope["query_string"]:
        return
    faults = [_unknown_parameter(key) for key in request.query_params if key not in names]
    if faults:
        raise_invalid(faults)


def prefer_wait_s(request: Request) -> int | None:
    """Return the seconds of `Prefer: wait=N`, at most 300; None without it."""
    prefer = request.headers.get("prefer")
    found = _WAIT.search(prefer) if prefer else None
    return min(int(found[1]), WAIT_MAX_S) if found else None


def resume_cursor(request: Request) -> int:
    """Return the sequence number after which a stream resumes; 0 for all events.

    `Last-Event-ID` takes precedence over `?after=`: a browser sends it when it reconnects. Raises
    ValidationFailed.
    """
    sources = (
        ("/Last-Event-ID", request.headers.get("last-event-id")),
        ("/after", request.query_params.get("after")),
    )
    values: list[int] = []
    faults: list[Fault] = []
    for pointer, text in sources:
        if text is None or (text == "" and pointer == "/Last-Event-ID"):
            continue
        if text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= SEQ_MAX:
            values.append(int(text))
        else:
            faults.append(fault(pointer, "must be a sequence number of an event"))
    if faults:
        raise_invalid(faults)
    return values[0] if values else 0


def event_types(request: Request) -> frozenset[str] | None:
    """Return the requested event types, `types=a,b` or the key repeated; None for all.

    Raises ValidationFailed.
    """
    given = request.query_params.getlist("types")
    if not given:
        return None
    types = {word.strip() for text in given for word in text.split(",")}
    unknown = sorted(types - set(EVENT_TYPES))
    if unknown:
        raise_invalid(
            [fault("/types", f"there is no type {unknown[0]!r}; known types: {', '.join(EVENT_TYPES)}")]
        )
    return frozenset(types)


def parse_job_query(request: Request) -> JobQuery:
    """Return the filters, order and page of GET /v1/jobs. Raises ValidationFailed with all faults."""
    query = JobQuery()
    faults: list[Fault] = []
    given: dict[str, list[str]] = {}
    for key, value in request.query_params.multi_items():
        given.setdefault(key, []).append(value)
    for key, values in given.items():
        try:
            if key.startswith("input.") and len(key) > 6:
                query.inputs = [*(query.inputs or []), *((key[6:], _json_value(value)) for value in values)]
            elif key in _LISTS:
                field, read = _LISTS[key]
                setattr(query, field, [read(value) for value in values])
            elif key in _SINGLES:
                field, read = _SINGLES[key]
                setattr(query, field, read(values[-1]))
            else:
                faults.append(_unknown_parameter(key))
        except ValueError as error:
            faults.append(fault(f"/{key[:100]}", str(error)))
    if faults:
        raise_invalid(faults)
    return query


def _unknown_parameter(key: str) -> Fault:
    return fault(
        f"/{key[:100]}", NOT_SUPPORTED if key in _UNSUPPORTED else "there is no such query parameter"
    )


def _json_value(text: str) -> bytes:
    """Return the value as JSON text; a text that is not JSON is taken as a string."""
    try:
        return msgspec.json.encode(msgspec.json.decode(text))
    except (msgspec.MsgspecError, RecursionError):
        return msgspec.json.encode(_text(text))


def _text(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain a NUL character")
    return text


def _one_of(values: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return text

    return read


def _timestamp(text: str) -> float:
    try:
        # A plus sign that was not percent-encoded is decoded as a space.
        return parse_rfc3339(text[:64].replace(" ", "+") if "T" in text else text[:64])
    except (ValueError, OverflowError):
        raise ValueError("must be a time such as 2026-01-31T09:05:00Z") from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= 500):
        raise ValueError("must be an integer from 1 to 500")
    return int(text)


_LISTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "state": ("states", _one_of(STATES)),
    "reason": ("reasons", _one_of(REASONS)),
    "handler": ("handlers", parse_name),
    "queue": ("queues", parse_name),
    "tenant": ("tenants", parse_name),
    "tag": ("tags", _text),
}
_SINGLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "created_after": ("created_after", _timestamp),
    "created_before": ("created_before", _timestamp),
    "finished_after": ("finished_after", _timestamp),
    "finished_before": ("finished_before", _timestamp),
    "order": ("order", _one_of(("asc", "desc"))),
    "limit": ("limit", _limit),
    "cursor": ("cursor", cursor.decode),
}
