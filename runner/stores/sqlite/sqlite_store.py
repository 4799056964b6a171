"""Effect: a store in one SQLite file, with a write-ahead log that is synced at every commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from runner.errors import Fenced, JobDamaged, StoreFull
from runner.jobs.event import Event
from runner.jobs.job import Job
from runner.jobs.job_query import JobQuery
from runner.stores.damaged_row import DAMAGED, STATES, DamagedRow, payload_damage
from runner.stores.event_page import take_events
from runner.stores.queued_groups import StoredGroup
from runner.stores.sqlite import batch_writes, preparation, statements
from runner.stores.sqlite.disk_reserve import DiskReserve
from runner.stores.sqlite.job_query_sql import select_numbers
from runner.stores.sqlite.job_rows import JobRows
from runner.stores.sqlite.job_search import JobSearch
from runner.stores.sqlite.row_check import UNREADABLE, read_text
from runner.stores.sqlite.sqlite_connection import BUSY_TIMEOUT_S, SqliteConnection
from runner.stores.store import SearchPage, WriteBatch

#: Number of chunks of events that one read examines.
_CHUNKS_PER_READ = 512
#: Length up to which Python checks a payload itself: in a millisecond at most.
_CHECKED_BYTES_MAX = 1024 * 1024

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
        self._job_rows = JobRows(self._connection)
        self._job_search = JobSearch(self._connection, self._job_rows)
        self._is_read_only = read_only
        self._reserve = DiskReserve(path)

    def take_epoch(self) -> int:
        """See `Store.take_epoch`.

        The check of the file stops after a second: it reads small and vital tables first, then as much of the
        large ones as time allows.

        Raises:
            RefusedStart: the file is another program's, or a newer version of this one wrote it.
        """
        connection = self._connection
        with connection.translate_errors("preparing it"), connection.closed_on_error():
            preparation.prepare(connection, check_limit_s=self._check_limit_s)
            # A start without it is possible, deletions on a full disk are not.
            self._reserve.keep()
            with connection.transaction():
                connection.db.execute("UPDATE meta SET value = value + 1 WHERE name = 'epoch'")
                return connection.fetch_meta("epoch")

    def commit(self, epoch: int, batch: WriteBatch) -> None:
        """See `Store.commit`. A batch of unknown outcome may be committed again.

        On a full disk a deletion gets the room of the reserve. Until there is room for that again, new jobs
        are refused: they would take it.
        """
        if self._reserve.is_released and batch.inserts and not self._reserve.keep():
            raise StoreFull(f"{self.path}: the disk is full: only deletions are possible")
        try:
            self._write(epoch, batch)
        except StoreFull:
            if not self._deletes_jobs(batch) or not self._reserve.release():
                raise
            self._write(epoch, batch)

    def _write(self, epoch: int, batch: WriteBatch) -> None:
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
            epoch = self._connection.fetch_meta("epoch")
            self._connection.check_name()
            return epoch

    def save_copy(self, path: str) -> None:
        """Write all that was committed to a new file, also if the store's own file has lost its name."""
        with self._connection.translate_errors("copying it"):
            Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite takes an empty file as a new one, and would itself make one that all may read.
            Path(path).touch(mode=0o600)
            self._connection.db.execute("VACUUM INTO ?", (path,))

    def last_job_number(self) -> int:
        """See `Store.last_job_number`."""
        with self._connection.translate_errors("reading it"):
            (last,) = self._connection.fetch_row(statements.LAST_N, ())
            return int(last)

    def find_jobs(self, query: JobQuery) -> list[Job]:
        """Return the jobs of one page, in the query's order."""
        excluded: set[int] = set()
        while True:
            sql, values = select_numbers(query, sorted(excluded))
            jobs = self._job_rows.fetch(sql, values, order="DESC" if query.order == "desc" else "ASC")
            damaged = self._job_rows.found_numbers - excluded
            if not damaged or len(jobs) == query.limit:
                return jobs
            # Damaged rows took places of the page: it is read again without them.
            excluded |= damaged

    def search_jobs(self, query: JobQuery, *, rows_max: int, limit_s: float) -> SearchPage:
        """See `Store.search_jobs`."""
        return self._job_search.run(query, rows_max=rows_max, limit_s=limit_s)

    def load_running_jobs(self) -> list[Job]:
        """See `Store.load_running_jobs`."""
        return self._job_rows.fetch(statements.RUNNING_NUMBERS, ())

    def load_queued_groups(self, now: float) -> list[StoredGroup]:
        """See `Store.load_queued_groups`."""
        with self._connection.translate_errors("reading it"):
            queries = (statements.QUEUED, statements.QUEUED_WITH_TIMES)
            rows = (self._connection.db.execute(sql, (now,)) for sql in queries)
            groups, damage = statements.stored_groups(*rows)
        self._job_rows.record(damage)
        return groups

    def load_jobs(self, numbers: Sequence[int]) -> list[Job]:
        """See `Store.load_jobs`."""
        return self._job_rows.fetch(statements.GIVEN_NUMBERS, (statements.numbers_json(numbers),))

    def load_payload(self, number: int, which: Literal["input", "output"]) -> bytes | None:
        """See `Store.load_payload`."""
        with self._connection.translate_errors("reading it"):
            row: tuple[bytes | None, int] | None = self._connection.db.execute(
                statements.PAYLOAD[which], (number, _CHECKED_BYTES_MAX)
            ).fetchone()
        if row is None:
            return None
        text, is_json = row
        if text is None:
            raise self._damaged(number, f"its {which} is empty")
        why = payload_damage(text) if len(text) <= _CHECKED_BYTES_MAX else None if is_json else "not JSON"
        if why is not None:
            raise self._damaged(number, f"its {which} is {why}")
        return text

    def load_payloads(self, numbers: Sequence[int], which: Literal["input", "output"]) -> dict[int, bytes]:
        """See `Store.load_payloads`."""
        with self._connection.translate_errors("reading it"):
            (text,) = self._connection.fetch_row(
                statements.PAYLOADS[which], (statements.numbers_json(numbers),)
            )
        pairs = (pair.split(" ") for pair in text.split(",")) if text else ()
        payloads = {int(n): bytes.fromhex(body) for n, body in pairs}
        damage = {n: f"its {which} is {why}" for n, body in payloads.items() if (why := payload_damage(body))}
        self._job_rows.record(damage)
        return {n: body for n, body in payloads.items() if n not in damage} if damage else payloads

    def load_events(self, number: int, after: int, max_bytes: int) -> list[Event]:
        """See `Store.load_events`."""
        with self._connection.translate_errors("reading it"):
            count, bodies = self._connection.fetch_row(
                statements.EVENTS, (number, after, _CHUNKS_PER_READ, max_bytes)
            )
        try:
            chunks = _chunks_decoder.decode(statements.join_bodies(count, bodies))
        except UNREADABLE as error:
            raise self._damaged(number, f"its events can't be decoded: {error}") from error
        return take_events((event for chunk in chunks for event in chunk), after, max_bytes)

    def take_damaged(self) -> list[DamagedRow]:
        """See `Store.take_damaged`."""
        return self._job_rows.take()

    def find_damaged(self, job_id: str) -> DamagedRow | None:
        """See `Store.find_damaged`."""
        return self._job_rows.find_damaged(job_id)

    def list_set_aside(self, above: int, below: int, limit: int) -> list[DamagedRow]:
        """See `Store.list_set_aside`."""
        return self._job_rows.list_set_aside(above, below, limit)

    def load_values(self, prefix: str) -> dict[str, bytes]:
        """Return values whose name begins with `prefix`."""
        with self._connection.translate_errors("reading it"):
            rows = self._connection.db.execute(statements.VALUES, (len(prefix), prefix)).fetchall()
        names_and_values = ((read_text(str(name)), value) for name, value in rows)
        # A damaged value counts as one that was never stored.
        return {
            name: value
            for name, value in names_and_values
            if isinstance(name, str) and isinstance(value, bytes)
        }

    def count_jobs(self) -> dict[tuple[str, str], int]:
        """See `Store.count_jobs`."""
        counts: dict[tuple[str, str], int] = {}
        set_aside = uncounted = 0
        with self._connection.translate_errors("reading it"):
            for queue_text, state_text, count in self._connection.db.execute(statements.COUNTS):
                queue, state = read_text(queue_text), read_text(state_text)
                if state == DAMAGED:
                    set_aside += count
                elif isinstance(queue, str) and isinstance(state, str) and state in STATES:
                    counts[queue, state] = count
                else:
                    uncounted += count
            rows = self._connection.db.execute(statements.UNCOUNTED_NUMBERS).fetchall() if uncounted else []
        self._job_rows.record(
            dict.fromkeys((int(str(n)) for (n,) in rows), "column state or queue is damaged")
        )
        return counts | {("", DAMAGED): set_aside} if set_aside else counts

    def close(self) -> None:
        """Close the file, without the reserve; the next use opens the file again."""
        self._connection.close()
        if not self._is_read_only:
            self._reserve.drop()

    def _deletes_jobs(self, batch: WriteBatch) -> bool:
        """Return whether the batch removes a stored job; the job of a refused submission is not stored."""
        if not batch.deletes or batch.inserts:
            return False
        sql = f"SELECT 1 FROM jobs WHERE n IN ({statements.GIVEN_NUMBERS}) LIMIT 1"
        with self._connection.translate_errors("reading it"):
            found = self._connection.db.execute(sql, (statements.numbers_json(batch.deletes),)).fetchone()
        return found is not None

    def _damaged(self, number: int, why: str) -> JobDamaged:
        self._job_rows.record({number: why})
        return JobDamaged(f"job {self._job_rows.found_id(number)} is damaged: {why}; DELETE removes it")
