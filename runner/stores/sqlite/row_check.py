"""Pure: checks the columns of a row of the SQLite file, which damage may have changed, against its body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from runner.jobs.event import Event
from runner.jobs.job import Job
from runner.jobs.traits import is_traits_text
from runner.stores.damaged_row import shown, text_damage

#: The columns of a job, in the order in which `check_job_row` takes them.
COLUMNS = (
    "n", "id", "handler", "queue", "priority", "state", "reason", "attempt", "created_at", "ready_at",
    "finished_at", "vram_bytes", "traits", "start_by", "tenant", "body",
)  # fmt: skip
_TEXTS = frozenset({"id", "handler", "queue", "state", "reason", "traits", "tenant"})


def text_sql(column: str) -> str:
    """Return SQL for a column that should hold text, for `read_text`: reading invalid UTF-8 would fail."""
    return f"(typeof({column}) || ' ' || hex({column}))"


def number_sql(column: str) -> str:
    """Return SQL for a column that should hold a number: the name of its type if it holds another value."""
    return f"iif(typeof({column}) IN ('text', 'blob'), typeof({column}), {column})"


def read_text(value: str) -> str | bytes | None:
    """Return the value of `text_sql`: a text, None for NULL, and bytes for everything else."""
    kind, _, digits = value.partition(" ")
    data = bytes.fromhex(digits)
    if kind == "null":
        return None
    try:
        return data.decode() if kind == "text" else data
    except UnicodeDecodeError:
        return data


def _column_sql(column: str) -> str:
    match column:
        case "n":
            return column
        case "body":
            return "iif(typeof(body) = 'blob', body, typeof(body))"
        case _:
            return text_sql(column) if column in _TEXTS else number_sql(column)


#: Rows for `check_job_row`.
SELECT_JOB_ROWS = f"SELECT {', '.join(map(_column_sql, COLUMNS))} FROM jobs"

_job_decoder = msgspec.msgpack.Decoder(Job)
_events_decoder = msgspec.msgpack.Decoder(list[Event])
#: What decoding bytes of any kind may raise.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError, OverflowError, RecursionError)


def check_job_row(row: Sequence[Any]) -> Job | str:
    """Return the job in a row with all COLUMNS, or why the row can't be used.

    The columns that find, order and fence a job must equal its body. Columns of ended jobs that only queued
    ones use are checked by type: earlier versions left them empty.
    """
    columns = {
        name: read_text(value) if name in _TEXTS else value for name, value in zip(COLUMNS, row, strict=True)
    }
    body = columns["body"]
    if not isinstance(body, bytes):
        return f"column body holds {shown(body)}"
    try:
        job = _job_decoder.decode(body)
    except UNREADABLE as error:
        return f"column body can't be decoded: {error}"
    expected = {
        "n": job.number,
        "id": job.id,
        "handler": job.handler,
        "queue": job.queue,
        "priority": job.priority,
        "state": job.state,
        "reason": job.reason,
        "attempt": job.attempt,
        "created_at": job.created_at,
        "ready_at": job.ready_at,
        "finished_at": job.finished_at,
    }
    for name, wanted in expected.items():
        found = columns[name]
        if type(found) is not type(wanted) or found != wanted:
            return f"column {name} holds {shown(found)}, its body {shown(wanted)}"
    return key_damage(columns["vram_bytes"], columns["traits"]) or _rest_damage(columns, job) or job


def _rest_damage(columns: dict[str, Any], job: Job) -> str | None:
    if not isinstance(columns["start_by"], float | None):
        return f"column start_by holds {shown(columns['start_by'])}"
    if not isinstance(columns["tenant"], str | None):
        return f"column tenant holds {shown(columns['tenant'])}"
    if job.state == "queued" and columns["traits"] is None:
        return "column traits is empty"
    return text_damage(job)


def key_damage(vram_bytes: object, traits: object) -> str | None:
    """Return why these two columns can't be used; None if they can."""
    if not isinstance(vram_bytes, int | None):
        return f"column vram_bytes holds {shown(vram_bytes)}"
    if traits is not None and not (isinstance(traits, str) and is_traits_text(traits)):
        return f"column traits holds {shown(traits)}"
    return None


def group_damage(
    queue: object, handler: object, priority: object, vram_bytes: object, traits: object
) -> str | None:
    """Return why queued jobs with these columns can't be planned; None if they can."""
    for name, value, wanted in (
        ("queue", queue, str),
        ("handler", handler, str),
        ("priority", priority, int),
        ("traits", traits, str),
    ):
        if not isinstance(value, wanted):
            return f"column {name} holds {shown(value)}"
    return key_damage(vram_bytes, traits)


def decode_events(body: object) -> list[Event] | str:
    """Return the events in a row, or why they can't be read."""
    if not isinstance(body, bytes):
        return f"a row of events holds {shown(body)}"
    try:
        return _events_decoder.decode(body)
    except UNREADABLE as error:
        return f"a row of events can't be decoded: {error}"
