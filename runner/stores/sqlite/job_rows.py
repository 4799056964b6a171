"""Effect: reads rows of jobs from the SQLite file, and collects the damaged ones among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from runner.jobs.job import Job
from runner.stores.damaged_row import DAMAGED, DamagedRow, shown, text_damage
from runner.stores.sqlite import statements
from runner.stores.sqlite.job_query_sql import SqlValue
from runner.stores.sqlite.row_check import COLUMNS, SELECT_JOB_ROWS, UNREADABLE, check_job_row, read_text
from runner.stores.sqlite.sqlite_connection import SqliteConnection

_jobs_decoder = msgspec.msgpack.Decoder(list[Job])
_STATE, _REASON = COLUMNS.index("state"), COLUMNS.index("reason")


class JobRows:
    """Reads jobs in one statement; only if one of the rows is damaged, each row by itself."""

    def __init__(self, connection: SqliteConnection) -> None:
        self._connection = connection
        self._found: dict[int, DamagedRow] = {}

    @property
    def found_numbers(self) -> set[int]:
        """Return the numbers of the damaged jobs found since the last `take`."""
        return set(self._found)

    def fetch(self, numbers_sql: str, values: Sequence[SqlValue], *, order: str = "ASC") -> list[Job]:
        """Return the jobs whose numbers `numbers_sql` selects, without damaged ones, in order of numbers."""
        with self._connection.translate_errors("reading it"):
            sql = statements.JOBS.format(numbers=numbers_sql, order=order)
            try:
                count, bodies, marks = self._connection.fetch_row(sql, values)
                jobs = _jobs_decoder.decode(statements.join_bodies(count, bodies))
                if statements.job_marks(jobs) == (marks or "") and not any(map(text_damage, jobs)):
                    return jobs
            except UNREADABLE:
                # One row is enough to fail all: the rows are read by themselves.
                pass
            return self._fetch_singly(numbers_sql, values, order)

    def _fetch_singly(self, numbers_sql: str, values: Sequence[SqlValue], order: str) -> list[Job]:
        jobs: list[Job] = []
        damage: statements.Damage = {}
        sql = f"{SELECT_JOB_ROWS} WHERE n IN ({numbers_sql}) ORDER BY n {order}"
        for row in self._connection.db.execute(sql, values):
            checked = check_job_row(row)
            if isinstance(checked, Job):
                jobs.append(checked)
            else:
                damage[row[0]] = checked
        self.record(damage)
        return jobs

    def record(self, damage: statements.Damage) -> None:
        """Record damaged jobs for `take`."""
        if not damage:
            return
        sql, numbers = statements.DAMAGED_COLUMNS, statements.numbers_json(list(damage))
        with self._connection.translate_errors("reading it"):
            for number, job_id, queue, state in self._connection.db.execute(sql, (numbers,)):
                self._found[number] = damaged_row(
                    number, read_text(job_id), damage[number], read_text(queue), read_text(state)
                )

    def found_id(self, number: int) -> str:
        """Return the id of a job just recorded, or its number in words if its row is gone."""
        row = self._found.get(number)
        return f"number {number}" if row is None else row.id

    def take(self) -> list[DamagedRow]:
        """Return the damaged jobs found since the last call."""
        found, self._found = self._found, {}
        return list(found.values())

    def find_damaged(self, job_id: str) -> DamagedRow | None:
        """Return the row with this id if it is set aside or damaged."""
        with self._connection.translate_errors("reading it"):
            row: tuple[Any, ...] | None
            row = self._connection.db.execute(f"{SELECT_JOB_ROWS} WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            return None
        if read_text(row[_STATE]) == DAMAGED:
            return damaged_row(row[0], job_id, str(read_text(row[_REASON])), "", DAMAGED)
        checked = check_job_row(row)
        return None if isinstance(checked, Job) else damaged_row(row[0], job_id, checked, "", "")

    def list_set_aside(self, above: int, below: int, limit: int) -> list[DamagedRow]:
        """See `Store.list_set_aside`."""
        with self._connection.translate_errors("reading it"):
            rows = self._connection.db.execute(statements.SET_ASIDE, (above, below, limit)).fetchall()
        return [
            damaged_row(int(str(number)), job_id, str(reason), "", DAMAGED) for number, job_id, reason in rows
        ]


def damaged_row(number: int, job_id: object, reason: str, queue: object, state: object) -> DamagedRow:
    """Return a damaged row from its columns, which may hold anything."""
    usable_id = job_id if isinstance(job_id, str) and job_id.isprintable() and job_id else f"row-{number}"
    if usable_id != job_id:
        reason = f"column id holds {shown(job_id)}; {reason}"
    return DamagedRow(
        number,
        usable_id,
        reason,
        queue if isinstance(queue, str) else "",
        state if isinstance(state, str) else "",
    )
