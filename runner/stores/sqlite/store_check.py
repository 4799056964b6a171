"""Effect: checks every row of an SQLite file, also while a server uses it; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from runner.errors import StoreUnavailable
from runner.jobs.job import Job
from runner.stores.damaged_row import DAMAGED, DamagedRow, payload_damage, shown
from runner.stores.sqlite import migrations
from runner.stores.sqlite.job_rows import damaged_row
from runner.stores.sqlite.row_check import COLUMNS, SELECT_JOB_ROWS, check_job_row, decode_events, read_text
from runner.stores.sqlite.sqlite_connection import SqliteConnection

#: Lines of SQLite's integrity check that are listed.
INTEGRITY_LINES_MAX = 100
_COLUMN_OF = {name: index for index, name in enumerate(COLUMNS)}
#: A body as bytes; NULL for a value that is neither text nor bytes.
_BODY_AS_BYTES = "iif(typeof(body) IN ('text', 'blob'), CAST(body AS BLOB), NULL)"


class StoreCheck(NamedTuple):
    """The findings of a check; both are empty for a file without damage."""

    #: Damage to the file as SQLite reports it, in one sentence each.
    integrity: list[str]
    #: Jobs that are set aside or can't be read, in order of their numbers.
    damaged: list[DamagedRow]


def check_store(path: str) -> StoreCheck:
    """Check the whole file: SQLite's integrity check, then every job with its input, output and events.

    Raises:
        StoreUnavailable: it can't be opened.
        StoreCorrupt: it is damaged so far that SQLite can't read it.
    """
    connection = SqliteConnection(path, read_only=True)
    try:
        with connection.translate_errors("checking it"):
            if connection.db.pragma("application_id") != migrations.APPLICATION_ID:
                raise StoreUnavailable(f"{path} is no store of runner, or no server has started on it yet")
            lines = connection.db.execute(f"PRAGMA integrity_check({INTEGRITY_LINES_MAX})").fetchall()
            integrity = [line for (line,) in lines if isinstance(line, str) and line != "ok"]
            return StoreCheck(integrity, list(_damaged_rows(connection)))
    finally:
        connection.close()


def _damaged_rows(connection: SqliteConnection) -> Iterator[DamagedRow]:
    for row in connection.db.execute(f"{SELECT_JOB_ROWS} ORDER BY n"):
        number = int(str(row[0]))
        job_id, queue, state, reason = (
            read_text(str(row[_COLUMN_OF[name]])) for name in ("id", "queue", "state", "reason")
        )
        why: str | None
        if state == DAMAGED:
            why = f"set aside: {shown(reason)}" if isinstance(reason, bytes) else f"set aside: {reason}"
        else:
            checked = check_job_row(row)
            why = _attached_damage(connection, checked) if isinstance(checked, Job) else checked
        if why is not None:
            yield damaged_row(number, job_id, why, queue, state)


def _attached_damage(connection: SqliteConnection, job: Job) -> str | None:
    """Return why the input, output or events of a job can't be read; None if they can."""
    wanted = {"input": True, "output": job.state == "succeeded"}
    for which, is_wanted in wanted.items():
        sql = f"SELECT {_BODY_AS_BYTES} FROM {which}s WHERE n = ?"
        found: tuple[Any, ...] | None = connection.db.execute(sql, (job.number,)).fetchone()
        if found is None and is_wanted:
            return f"its {which} is missing"
        if found is not None:
            why = "empty" if found[0] is None else payload_damage(found[0])
            if why is not None:
                return f"its {which} is {why}"
    sql = f"SELECT {_BODY_AS_BYTES} FROM events WHERE n = ? ORDER BY first_seq"
    for (body,) in connection.db.execute(sql, (job.number,)):
        events = decode_events(body)
        if isinstance(events, str):
            return events
        for event in events:
            if (why := payload_damage(event.data)) is not None:
                return f"event {event.seq} is {why}"
    return None
