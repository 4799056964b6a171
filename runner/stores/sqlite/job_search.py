"""Effect: searches the inputs of jobs in the SQLite file, for a bounded time."""

from __future__ import annotations

import time
from collections.abc import Sequence

from runner.jobs.job import Job
from runner.jobs.job_query import JobQuery
from runner.stores.sqlite import statements
from runner.stores.sqlite.job_query_sql import SqlValue, input_conditions, select_numbers
from runner.stores.sqlite.job_rows import JobRows
from runner.stores.sqlite.sqlite_connection import SqliteConnection
from runner.stores.store import SearchPage

#: Rows of the first window of a search, and of the longest; time that a window should take.
_FIRST_WINDOW_ROWS = 16
_WINDOW_ROWS_MAX = 20_000
_WINDOW_S = 0.1


class JobSearch:
    """Reads jobs in windows, whose length follows the time that they take."""

    def __init__(self, connection: SqliteConnection, job_rows: JobRows) -> None:
        self._connection = connection
        self._job_rows = job_rows

    def run(self, query: JobQuery, *, rows_max: int, limit_s: float) -> SearchPage:
        """See `Store.search_jobs`."""
        conditions, condition_values = input_conditions(query)
        order = "DESC" if query.order == "desc" else "ASC"
        tests = "".join(f" AND {condition}" for condition in conditions)
        where = f"n IN (SELECT value FROM json_each(?)){tests}"
        sql = f"SELECT n FROM jobs WHERE {where} ORDER BY n {order} LIMIT ?"
        began_mono = time.monotonic()
        found: list[Job] = []
        window, looked, cursor = _FIRST_WINDOW_ROWS, 0, query.cursor
        while True:
            window_began_mono = time.monotonic()
            numbers = self._window(query, cursor, min(window, rows_max - looked), order)
            if numbers:
                left = query.limit - len(found)
                found += self._fetch_matching(numbers, sql, condition_values, left, order)
                cursor = numbers[-1]
                looked += len(numbers)
            if len(numbers) < window and looked < rows_max:
                return SearchPage(found)
            now_mono = time.monotonic()
            if len(found) >= query.limit:
                return SearchPage(found, cursor)
            if looked >= rows_max or now_mono - began_mono >= limit_s:
                return SearchPage(found, cursor)
            window = _next_window(window, now_mono - window_began_mono)

    def _fetch_matching(
        self, numbers: list[int], sql: str, condition_values: Sequence[SqlValue], limit: int, order: str
    ) -> list[Job]:
        """Return the first `limit` jobs of `numbers` that match the conditions in `sql`."""
        while True:
            values = (statements.numbers_json(numbers), *condition_values, limit)
            jobs = self._job_rows.fetch(sql, values, order=order)
            damaged = self._job_rows.found_numbers.intersection(numbers)
            if not damaged or len(jobs) == limit:
                return jobs
            # Damaged rows took places of the limit.
            numbers = [number for number in numbers if number not in damaged]

    def _window(self, query: JobQuery, cursor: int | None, rows: int, order: str) -> list[int]:
        """Return the next numbers that match all filters but those on inputs, in the query's order."""
        fields = {name: getattr(query, name) for name in query.__struct_fields__}
        numbers_sql, values = select_numbers(
            JobQuery(**fields | {"inputs": None, "cursor": cursor, "limit": rows})
        )
        sql = f"SELECT group_concat(n, ',' ORDER BY n {order}) FROM ({numbers_sql})"
        with self._connection.translate_errors("reading it"):
            (text,) = self._connection.fetch_row(sql, values)
        return [int(number) for number in text.split(",")] if text else []


def _next_window(rows: int, took_s: float) -> int:
    """Return the rows of the next window, so that it takes about `_WINDOW_S`."""
    if took_s < _WINDOW_S / 2:
        return min(rows * 4, _WINDOW_ROWS_MAX)
    return max(rows // 4, 1) if took_s > 2 * _WINDOW_S else rows
