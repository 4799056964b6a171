"""Effect: the store in one SQLite file: WAL, synchronous=FULL, one writing connection, many reading ones.

The only file that knows apsw. Errors of SQLite leave it as errors of ours, with the path and what to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import apsw
import msgspec

from runner.errors import Fenced, RefusedStart, RunnerError, StoreUnavailable
from runner.event import Event
from runner.job import Job
from runner.stores import Batch, JobQuery, schema, statements, wal
from runner.stores.damage import corrupt
from runner.stores.page import page
from runner.stores.query import Value, select_ns
from runner.stores.queued import QueuedLot

_BUSY_TIMEOUT_S = 5.0
#: How often a locked file is tried.
_BUSY_PAUSE_S = 0.02
#: The file check at start ends after so long, whatever the file's size.
_CHECK_LIMIT_S = 1.0
#: SQLite asks whether to go on after so many of its steps.
_CHECK_STEPS = 10_000
#: Frames in the WAL beyond which it is copied into the file: 4 KiB each. Larger ones coalesce more
#: writes of one page, smaller ones make each copy (during which no commit runs) shorter.
CHECKPOINT_PAGES = 1_000
#: The WAL is made so long at start; commits then overwrite it, which spares the file system's
#: journal from recording a new length with every fsync.
_WAL_FILL_BYTES = 5 * 1024 * 1024
#: A WAL grown beyond this (by a long reader) is cut when it starts over.
_WAL_KEEP_BYTES = 64 * 1024 * 1024
#: Chunks of events looked at in one read.
_EVENT_PAGE = 512

_jobs_decoder = msgspec.msgpack.Decoder(list[Job])
_chunks_decoder = msgspec.msgpack.Decoder(list[list[Event]])


class SqliteStore:
    """A `Store` in the file `path`; opened at first use, in the thread that uses it.

    With `read_only` it only serves reads, and needs a file that a writing one has prepared by
    `take_epoch`. Only a writing one checkpoints: two connections that commit and checkpoint at the same
    moment have damaged files in past versions of SQLite.
    """

    def __init__(
        self,
        path: str,
        *,
        read_only: bool = False,
        busy_timeout_s: float = _BUSY_TIMEOUT_S,
        check_limit_s: float = _CHECK_LIMIT_S,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        """`pause` waits so many seconds, or says True: nobody needs the lock any more that is waited for."""
        self.path = path
        self.stale_updates = 0
        self._read_only = read_only
        self._busy_timeout_s = busy_timeout_s
        self._check_limit_s = check_limit_s
        self._pause = pause
        self._busy_until = 0.0
        self._connection: apsw.Connection | None = None
        self._wal_pages = 0

    def take_epoch(self) -> int:
        """See `Store.take_epoch`. The check of the file stops after a second: it reads small and vital
        tables first, and as much of the large ones as it gets to.

        Raises:
            RefusedStart: the file is another program's, or a newer version of this one wrote it.
        """
        with self._telling("preparing it"):
            self._check_log()
            db = self._db
            self._refuse_foreign(db)
            if db.pragma("journal_mode", "wal") != "wal":
                raise StoreUnavailable(f"{self.path}: this file system can hold no write-ahead log")
            self._check(db)
            with self._transaction(db):
                self._migrate(db)
            self._lengthen_wal(db)
            with self._transaction(db):
                db.execute("UPDATE meta SET value = value + 1 WHERE name = 'epoch'")
                return self._meta(db, "epoch")

    def commit(self, epoch: int, batch: Batch) -> None:
        """See `Store.commit`. A batch whose outcome was unknown may be committed again."""
        with self._telling("writing to it"):
            db = self._db
            with self._transaction(db):
                current = self._meta(db, "epoch")
                if current != epoch:  # guard: epoch-in-transactions
                    why = f"epoch {current} is in force, this coordinator has {epoch}: it must stop"
                    raise Fenced(f"{self.path}: {why}")
                self._apply(db, batch)

    def checkpoint_if_due(self) -> bool:
        """Copy the WAL into the file when it has grown long enough; True if that was tried.

        For the owner of the writing connection, after it has answered those who waited for a commit.
        """
        if self._wal_pages < CHECKPOINT_PAGES:
            return False
        with self._telling("copying its log"):
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._wal_pages = 0
        return True

    def epoch(self) -> int:
        """See `Store.epoch`."""
        with self._telling("reading it"):
            return self._meta(self._db, "epoch")

    def last_n(self) -> int:
        """See `Store.last_n`."""
        with self._telling("reading it"):
            (last,) = self._row(statements.LAST_N, ())
            return int(last)

    def find(self, query: JobQuery) -> list[Job]:
        """The jobs of one page, in the query's order."""
        ns, values = select_ns(query)
        order = "DESC" if query.order == "desc" else "ASC"
        sql = f"SELECT count(*), group_concat(hex(body), '' ORDER BY n {order}) FROM jobs WHERE n IN ({ns})"
        return self._jobs(sql, values)

    def running(self) -> list[Job]:
        """See `Store.running`."""
        return self._jobs(statements.RUNNING, ())

    def queued(self, now: float) -> list[QueuedLot]:
        """See `Store.queued`."""
        with self._telling("reading it"):
            asked = (statements.QUEUED, statements.QUEUED_MARKED)
            return statements.lots(*(self._db.execute(sql, (now,)) for sql in asked))

    def jobs(self, ns: Sequence[int]) -> list[Job]:
        """See `Store.jobs`."""
        return self._jobs(statements.JOBS, (statements.numbers(ns),))

    def payload(self, n: int, which: Literal["input", "output"]) -> bytes | None:
        """See `Store.payload`."""
        with self._telling("reading it"):
            row = self._db.execute(statements.PAYLOAD[which], (n,)).fetchone()
        return None if row is None else bytes(row[0])

    def payloads(self, ns: Sequence[int], which: Literal["input", "output"]) -> dict[int, bytes]:
        """See `Store.payloads`."""
        with self._telling("reading it"):
            (text,) = self._row(statements.PAYLOADS[which], (statements.numbers(ns),))
        pairs = (pair.split(" ") for pair in text.split(",")) if text else ()
        return {int(n): bytes.fromhex(body) for n, body in pairs}

    def events(self, n: int, after: int, max_bytes: int) -> list[Event]:
        """See `Store.events`."""
        with self._telling("reading it"):
            count, bodies = self._row(statements.EVENTS, (n, after, _EVENT_PAGE, max_bytes))
        chunks = _chunks_decoder.decode(statements.joined(count, bodies))
        return page((event for chunk in chunks for event in chunk), after, max_bytes)

    def values(self, prefix: str) -> dict[str, bytes]:
        """Values whose name begins with `prefix`."""
        sql = "SELECT name, body FROM vals WHERE substr(name, 1, ?) = ? ORDER BY name"
        with self._telling("reading it"):
            return {str(name): bytes(body) for name, body in self._db.execute(sql, (len(prefix), prefix))}

    def counts(self) -> dict[tuple[str, str], int]:
        """See `Store.counts`."""
        with self._telling("reading it"):
            return {(queue, state): count for queue, state, count in self._db.execute(statements.COUNTS)}

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with self._telling("closing it"):
                connection.close()

    # Opening.

    @property
    def _db(self) -> apsw.Connection:
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _open(self) -> apsw.Connection:
        if self._read_only:
            db = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READONLY)
            # Else the last connection to close would checkpoint, and that may be a reading one.
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            db.pragma("query_only", True)
        else:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            # Inputs may be private; the log and its index take their mode from this file.
            Path(self.path).touch(mode=0o600)
            db = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
            db.set_wal_hook(self._grown)
            db.pragma("synchronous", "FULL")  # guard: synced-commits
            db.pragma("journal_size_limit", _WAL_KEEP_BYTES)
            db.pragma("cache_size", -16_000)
        if self._pause is None:
            db.set_busy_timeout(round(self._busy_timeout_s * 1000))
        else:
            db.set_busy_handler(self._busy)
        return db

    def _busy(self, tries: int) -> bool:
        """The file is locked: wait a little, or give up."""
        if self._pause is None:
            return False
        now = time.monotonic()
        if tries == 0:
            self._busy_until = now + self._busy_timeout_s
        return now < self._busy_until and not self._pause(_BUSY_PAUSE_S)

    def _grown(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _refuse_foreign(self, db: apsw.Connection) -> None:
        owner = db.pragma("application_id")
        if owner == schema.APPLICATION_ID:
            return
        (tables,) = self._row("SELECT count(*) FROM sqlite_schema", ())
        if owner != 0 or tables:
            what = "is an SQLite file of another program; name another path with --store"
            raise RefusedStart(f"{self.path} {what}")

    def _check_log(self) -> None:
        """SQLite would pass over what lies behind damage in its log, and say nothing."""
        log = Path(f"{self.path}-wal")
        # Not once it is open: to close a file drops this process's locks on it.
        text = log.read_bytes() if self._connection is None and log.exists() else b""
        # Read again: one that still changes, as an older coordinator writes, can't be judged.
        if wal.is_damaged(text) and log.read_bytes() == text:
            raise corrupt(str(log), "commits lie behind a frame that is not whole")

    def _check(self, db: apsw.Connection) -> None:
        until = time.monotonic() + self._check_limit_s
        db.set_progress_handler(lambda: time.monotonic() > until, _CHECK_STEPS)
        try:
            for table in (name for name in schema.TABLES if db.table_exists("main", name)):
                for (line,) in db.execute(f"PRAGMA quick_check('{table}')"):
                    if line != "ok":
                        raise corrupt(self.path, str(line))
        except apsw.InterruptError:
            return
        finally:
            db.set_progress_handler(None)

    def _migrate(self, db: apsw.Connection) -> None:
        db.execute(schema.MIGRATIONS_TABLE)
        (version,) = self._row("SELECT coalesce(max(version), 0) FROM migrations", ())
        newest = schema.STEPS[-1].version
        if version > newest:
            raise RefusedStart(
                f"{self.path} has the form {version} of a newer runner; this one knows forms up to {newest}: "
                "start the newer one, or name another path with --store"
            )
        for name, told in statements.OF_BODIES.items():
            db.create_scalar_function(name, told)  # type: ignore[arg-type]  # they get the blob alone
        for step in schema.STEPS[version:]:
            for statement in step.statements:
                db.execute(statement)
            db.execute("INSERT INTO migrations VALUES (?, ?, ?)", (step.version, step.name, time.time()))
        db.pragma("application_id", schema.APPLICATION_ID)

    def _lengthen_wal(self, db: apsw.Connection) -> None:
        """Write a large transaction through a tiny cache, so that its pages spill, and take it back."""
        db.pragma("cache_size", 10)
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute("INSERT INTO vals (name, body) VALUES ('', zeroblob(?))", (_WAL_FILL_BYTES,))
        finally:
            db.execute("ROLLBACK")
            db.pragma("cache_size", -16_000)

    # Writing.

    @contextmanager
    def _transaction(self, db: apsw.Connection) -> Iterator[None]:
        # IMMEDIATE: a transaction that read first is refused at its first write, whatever the timeout.
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _apply(self, db: apsw.Connection, batch: Batch) -> None:
        if batch.inserts:
            self._insert(db, batch.inserts)
        outputs, events = batch.outputs, batch.events
        if batch.updates:
            stale = self._update(db, batch.updates)
            if stale:
                outputs = [output for output in outputs if output[0] not in stale]
                events = [chunk for chunk in events if chunk.n not in stale]
        if outputs:
            db.executemany(statements.INSERT_OUTPUT, outputs)
        if events:
            db.executemany(statements.INSERT_EVENTS, statements.chunk_rows(events))
        if batch.trims:
            # Chunks of a job lie in order: `first_seq` bounds the search for the others.
            sql = "DELETE FROM events WHERE n = ? AND first_seq < ? AND last_seq < ?"
            db.executemany(sql, ((n, seq, seq) for n, seq in batch.trims))
        if batch.deletes:
            # The highest number tells the last one given; it must outlive its job.
            db.execute(f"UPDATE meta SET value = ({statements.LAST_N}) WHERE name = 'last_n'")
            for table in ("jobs", "inputs", "outputs", "events", "tags"):
                db.executemany(f"DELETE FROM {table} WHERE n = ?", ((n,) for n in batch.deletes))
        for name, value in batch.values:
            if value is None:
                db.execute("DELETE FROM vals WHERE name = ?", (name,))
            else:
                db.execute("INSERT OR REPLACE INTO vals (name, body) VALUES (?, ?)", (name, value))

    def _insert(self, db: apsw.Connection, inserts: Sequence[tuple[Job, bytes]]) -> None:
        before = db.total_changes()
        db.executemany(statements.INSERT_JOB, [statements.insert_row(job) for job, _ in inserts])
        if db.total_changes() - before != len(inserts):
            raise RunnerError(f"{self.path}: a new job has the number of one that is stored already")
        db.executemany(statements.INSERT_INPUT, [(job.n, body) for job, body in inserts])
        tags = [(tag, job.n) for job, _ in inserts for tag in job.terms.tags]
        if tags:
            db.executemany("INSERT OR IGNORE INTO tags (tag, n) VALUES (?, ?)", tags)

    def _update(self, db: apsw.Connection, updates: Sequence[Job]) -> frozenset[int]:
        """Write the changed jobs; gives those that a later attempt (or a delete) has overtaken."""
        before = db.total_changes()
        db.executemany(statements.UPDATE_JOB, [statements.update_row(job) for job in updates])
        if db.total_changes() - before == len(updates):
            return frozenset()
        sql = "SELECT 1 FROM jobs WHERE n = ? AND attempt <= ?"
        stale = {job.n for job in updates if db.execute(sql, (job.n, job.attempt)).fetchone() is None}
        self.stale_updates += len(stale)
        return frozenset(stale)

    # Small things.

    def _jobs(self, sql: str, values: Sequence[Value]) -> list[Job]:
        with self._telling("reading it"):
            count, bodies = self._row(sql, values)
        return _jobs_decoder.decode(statements.joined(count, bodies))

    def _row(self, sql: str, values: Sequence[Value]) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._db.execute(sql, values).fetchall()[0]
        return row

    def _meta(self, db: apsw.Connection, name: str) -> int:
        row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return 0 if row is None else int(row[0])

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            raise _translated(error, doing, self.path) from error
        except OSError as error:
            raise StoreUnavailable(f"{self.path}: {doing} failed: {error}") from error


def version() -> str:
    """The version of SQLite that is used."""
    return apsw.sqlite_lib_version()


def _translated(error: apsw.Error, doing: str, path: str) -> RunnerError:
    match error:
        case apsw.CorruptError() | apsw.NotADBError():
            return corrupt(path, str(error))
        case apsw.BusyError() | apsw.LockedError():
            why = "another process holds it locked"
        case apsw.FullError():
            why = "the disk is full (or a limit on the file's size is reached)"
        case apsw.ReadOnlyError() | apsw.PermissionsError():
            why = "the file or its folder is read-only"
        case apsw.CantOpenError():
            why = "the file cannot be opened"
        case apsw.IOError() | apsw.NoMemError():
            why = "reading or writing failed"
        case _:
            return RunnerError(f"{path}: {doing} failed: {error}")
    return StoreUnavailable(f"{path}: {doing} failed: {why} ({error})")
