"""Pure: parses query strings and the `Prefer` header strictly."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

import msgspec
from starlette.requests import Request

from api.http.problems import Fault, fault, raise_invalid
from api.http.submission import NOT_SUPPORTED, parse_name
from runner.bounds import (
    FILTER_VALUES_MAX,
    INPUT_FILTERS_MAX,
    INT64_MAX,
    PAGE_MAX,
    PATH_CHARS_MAX,
    VALUE_CHARS_MAX,
    WAIT_S_MAX,
    is_too_far,
)
from runner.formats.timestamps import parse_rfc3339
from runner.jobs import cursor
from runner.jobs.event import STREAM_TYPES
from runner.jobs.job import ErrorCode, QueuedReason, RunningReason, State
from runner.jobs.job_query import JobQuery
from runner.jobs.traits import PATH

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
    return min(int(found[1]), WAIT_S_MAX) if found else None


def resume_cursor(request: Request) -> int | None:
    """Return the sequence number after which a stream resumes; 0 for all events, None for `?after=now`.

    `Last-Event-ID` takes precedence over `?after=`: a browser sends it when it reconnects. Raises
    ValidationFailed.
    """
    sources = (
        ("/Last-Event-ID", request.headers.get("last-event-id")),
        ("/after", request.query_params.get("after")),
    )
    values: list[int | None] = []
    faults: list[Fault] = []
    for pointer, text in sources:
        if text is None or (text == "" and pointer == "/Last-Event-ID"):
            continue
        if text == "now" and pointer == "/after":
            values.append(None)
        elif text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= INT64_MAX:
            values.append(int(text))
        else:
            or_now = ' or "now"' if pointer == "/after" else ""
            faults.append(fault(pointer, f"must be a sequence number of an event{or_now}"))
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
    unknown = sorted(types - set(STREAM_TYPES))
    if unknown:
        raise_invalid(
            [fault("/types", f"there is no type {unknown[0]!r}; known types: {', '.join(STREAM_TYPES)}")]
        )
    return frozenset(types)


def parse_job_query(request: Request, *, now: float) -> JobQuery:
    """Return the filters, order and page of GET /v1/jobs.

    Times are checked against `now` (UTC epoch seconds). Raises ValidationFailed with all faults.
    """
    query = JobQuery()
    faults: list[Fault] = []
    given: dict[str, list[str]] = {}
    for key, value in request.query_params.multi_items():
        given.setdefault(key, []).append(value)
    for key, values in given.items():
        try:
            if key.startswith("input.") and len(key) > 6:
                path = _input_path(key[6:])
                query.inputs = [*(query.inputs or []), *((path, _json_value(value)) for value in values)]
            elif key in _LISTS:
                field, read = _LISTS[key]
                setattr(query, field, [read(value) for value in _bounded(values)])
            elif key in _SINGLES:
                field, read = _SINGLES[key]
                setattr(query, field, read(values[-1]))
            elif key in _TIMES:
                setattr(query, key, _timestamp(values[-1], now))
            else:
                faults.append(_unknown_parameter(key))
        except ValueError as error:
            faults.append(fault(f"/{key[:100]}", str(error)))
    if len(query.inputs or ()) > INPUT_FILTERS_MAX:
        faults.append(fault("/input", f"there may be at most {INPUT_FILTERS_MAX} filters by input"))
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
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        value = _text(text)
    if isinstance(value, int) and not -INT64_MAX - 1 <= value <= INT64_MAX:
        raise ValueError("must be an integer of at most 64 bits, with a sign")
    return msgspec.json.encode(value)


def _input_path(text: str) -> str:
    if len(text) > PATH_CHARS_MAX or not PATH.fullmatch(text):
        raise ValueError(f"must name a field of the input by a path of at most {PATH_CHARS_MAX} characters")
    return text


def _bounded(values: list[str]) -> list[str]:
    if len(values) > FILTER_VALUES_MAX:
        raise ValueError(f"must have at most {FILTER_VALUES_MAX} values")
    return values


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


def _timestamp(text: str, now: float) -> float:
    text = text[:VALUE_CHARS_MAX]
    try:
        # A plus sign that was not percent-encoded is decoded as a space.
        at = parse_rfc3339(text.replace(" ", "+") if "T" in text else text)
    except (ValueError, OverflowError):
        raise ValueError("must be a time such as 2026-01-31T09:05:00Z") from None
    if is_too_far(at, now):
        raise ValueError("must be at most ten years ahead")
    return at


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= PAGE_MAX):
        raise ValueError(f"must be an integer from 1 to {PAGE_MAX}")
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
    "order": ("order", _one_of(("asc", "desc"))),
    "limit": ("limit", _limit),
    "cursor": ("cursor", cursor.decode),
}
_TIMES = ("created_after", "created_before", "finished_after", "finished_before")
