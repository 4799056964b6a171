"""Effect: a store in one SQLite file, with a write-ahead log that is synced at every commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from runner.errors import Fenced
from runner.jobs.event import Event
from runner.jobs.job import Job
from runner.jobs.job_query import JobQuery
from runner.stores.event_page import take_events
from runner.stores.queued_groups import StoredGroup
from runner.stores.sqlite import batch_writes, preparation, statements
from runner.stores.sqlite.job_query_sql import SqlValue, input_conditions, select_numbers
from runner.stores.sqlite.sqlite_connection import BUSY_TIMEOUT_S, SqliteConnection
from runner.stores.store import SearchPage, WriteBatch

#: Number of chunks of events that one read examines.
_CHUNKS_PER_READ = 512
#: Rows of the first window of a search, and of the longest; time that a window should take.
_FIRST_WINDOW_ROWS = 16
_WINDOW_ROWS_MAX = 20_000
_WINDOW_S = 0.1

_jobs_decoder = msgspec.msgpack.Decoder(list[Job])
_chunks_decoder = msgspec.msgpack.Decoder(list[list[Event]])


class SqliteStore:
    """A `Store` in the file `path`, which is opened at the first use, in the thread that uses it.

    With `read_only` it serves reads only, and needs a file that a writing store has prepared by `take_epoch`.
    """

    def __init__(
        self,
        path: str,
        *,
        read_only: bool = False,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        check_limit_s: float = preparation.CHECK_LIMIT_S,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        """See `SqliteConnection` for `busy_timeout_s` and `pause`, `prepare` for `check_limit_s`."""
        self.path = path
        #: Number of updates dropped because a later attempt was stored already.
        self.stale_updates = 0
        self._check_limit_s = check_limit_s
        self._connection = SqliteConnection(
            path, read_only=read_only, busy_timeout_s=busy_timeout_s, pause=pause
        )

    def take_epoch(self) -> int:
        """See `Store.take_epoch`.

        The check of the file stops after a second: it reads small and vital tables first, then as much of the
        large ones as time allows.

        Raises:
            RefusedStart: the file is another program's, or a newer version of this one wrote it.
        """
        connection = self._connection
        with connection.translate_errors("preparing it"):
            preparation.prepare(connection, check_limit_s=self._check_limit_s)
            with connection.transaction():
                connection.db.execute("UPDATE meta SET value = value + 1 WHERE name = 'epoch'")
                return connection.fetch_meta("epoch")

    def commit(self, epoch: int, batch: WriteBatch) -> None:
        """See `Store.commit`. A batch of unknown outcome may be committed again."""
        connection = self._connection
        with connection.translate_errors("writing to it"), connection.transaction():
            current = connection.fetch_meta("epoch")
            if current != epoch:  # guard: epoch-in-transactions
                why = f"epoch {current} is in force, this coordinator has {epoch}: it must stop"
                raise Fenced(f"{self.path}: {why}")
            self.stale_updates += batch_writes.write_batch(connection, batch)

    def checkpoint_if_due(self) -> bool:
        """Copy the WAL into the file if it has grown long enough; return whether that was tried.

        The writer calls this after it has answered the pending commits, which would wait for it otherwise.
        """
        return self._connection.checkpoint_if_due()

    def current_epoch(self) -> int:
        """See `Store.current_epoch`."""
        with self._connection.translate_errors("reading it"):
            return self._connection.fetch_meta("epoch")

    def last_job_number(self) -> int:
        """See `Store.last_job_number`."""
        with self._connection.translate_errors("reading it"):
            (last,) = self._connection.fetch_row(statements.LAST_N, ())
            return int(last)

    def find_jobs(self, query: JobQuery) -> list[Job]:
        """Return the jobs of one page, in the query's order."""
        numbers_sql, values = select_numbers(query)
        order = "DESC" if query.order == "desc" else "ASC"
        bodies_sql = f"group_concat(hex(body), '' ORDER BY n {order})"
        sql = f"SELECT count(*), {bodies_sql} FROM jobs WHERE n IN ({numbers_sql})"
        return self._fetch_jobs(sql, values)

    def search_jobs(self, query: JobQuery, *, rows_max: int, limit_s: float) -> SearchPage:
        """See `Store.search_jobs`. Jobs are read in windows, whose length follows the time that they take."""
        conditions, condition_values = input_conditions(query)
        order = "DESC" if query.order == "desc" else "ASC"
        tests = "".join(f" AND {condition}" for condition in conditions)
        sql = f"""
SELECT count(*), group_concat(hex(body), '' ORDER BY n {order}) FROM jobs WHERE n IN (
    SELECT n FROM jobs WHERE n IN (SELECT value FROM json_each(?)){tests} ORDER BY n {order} LIMIT ?)"""
        began_mono = time.monotonic()
        found: list[Job] = []
        window, looked, cursor = _FIRST_WINDOW_ROWS, 0, query.cursor
        while True:
            window_began_mono = time.monotonic()
            numbers = self._window(query, cursor, min(window, rows_max - looked), order)
            if numbers:
                left = query.limit - len(found)
                text = statements.numbers_json(numbers)
                found += self._fetch_jobs(sql, (text, *condition_values, left))
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

    def load_running_jobs(self) -> list[Job]:
        """See `Store.load_running_jobs`."""
        return self._fetch_jobs(statements.RUNNING, ())

    def load_queued_groups(self, now: float) -> list[StoredGroup]:
        """See `Store.load_queued_groups`."""
        with self._connection.translate_errors("reading it"):
            queries = (statements.QUEUED, statements.QUEUED_WITH_TIMES)
            return statements.stored_groups(*(self._connection.db.execute(sql, (now,)) for sql in queries))

    def load_jobs(self, numbers: Sequence[int]) -> list[Job]:
        """See `Store.load_jobs`."""
        return self._fetch_jobs(statements.JOBS, (statements.numbers_json(numbers),))

    def load_payload(self, number: int, which: Literal["input", "output"]) -> bytes | None:
        """See `Store.load_payload`."""
        with self._connection.translate_errors("reading it"):
            row = self._connection.db.execute(statements.PAYLOAD[which], (number,)).fetchone()
        return None if row is None else bytes(row[0])

    def load_payloads(self, numbers: Sequence[int], which: Literal["input", "output"]) -> dict[int, bytes]:
        """See `Store.load_payloads`."""
        with self._connection.translate_errors("reading it"):
            (text,) = self._connection.fetch_row(
                statements.PAYLOADS[which], (statements.numbers_json(numbers),)
            )
        pairs = (pair.split(" ") for pair in text.split(",")) if text else ()
        return {int(n): bytes.fromhex(body) for n, body in pairs}

    def load_events(self, number: int, after: int, max_bytes: int) -> list[Event]:
        """See `Store.load_events`."""
        with self._connection.translate_errors("reading it"):
            count, bodies = self._connection.fetch_row(
                statements.EVENTS, (number, after, _CHUNKS_PER_READ, max_bytes)
            )
        chunks = _chunks_decoder.decode(statements.join_bodies(count, bodies))
        return take_events((event for chunk in chunks for event in chunk), after, max_bytes)

    def load_values(self, prefix: str) -> dict[str, bytes]:
        """Return values whose name begins with `prefix`."""
        sql = "SELECT name, body FROM vals WHERE substr(name, 1, ?) = ? ORDER BY name"
        with self._connection.translate_errors("reading it"):
            return {
                str(name): bytes(body)
                for name, body in self._connection.db.execute(sql, (len(prefix), prefix))
            }

    def count_jobs(self) -> dict[tuple[str, str], int]:
        """See `Store.count_jobs`."""
        with self._connection.translate_errors("reading it"):
            return {
                (queue, state): count
                for queue, state, count in self._connection.db.execute(statements.COUNTS)
            }

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._connection.close()

    def _fetch_jobs(self, sql: str, values: Sequence[SqlValue]) -> list[Job]:
        with self._connection.translate_errors("reading it"):
            count, bodies = self._connection.fetch_row(sql, values)
        return _jobs_decoder.decode(statements.join_bodies(count, bodies))


def _next_window(rows: int, took_s: float) -> int:
    """Return the rows of the next window, so that it takes about `_WINDOW_S`."""
    if took_s < _WINDOW_S / 2:
        return min(rows * 4, _WINDOW_ROWS_MAX)
    return max(rows // 4, 1) if took_s > 2 * _WINDOW_S else rows
