"""Effect: one connection to the SQLite file: its opening, pragmas, locks and transactions.

This is the only module that uses apsw. It raises errors of SQLite as `RunnerError`, with path and cause.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from runner.errors import RunnerError, StoreFull, StoreGone, StoreUnavailable
from runner.stores.sqlite.corruption import corrupt_file_error
from runner.stores.sqlite.job_query_sql import SqlValue

#: Longest wait for a lock of another process.
BUSY_TIMEOUT_S = 5.0
#: Pause between two tries to lock the file.
_BUSY_PAUSE_S = 0.02
#: Number of SQLite's steps between two checks of the time limit.
_LIMIT_STEPS = 10_000
#: Frames in the WAL beyond which it is copied into the file: 4 KiB each. A larger number coalesces more
#: writes of one page; a smaller one makes each copy (during which no commit runs) shorter.
CHECKPOINT_PAGES = 1_000
#: A WAL that a long read let grow beyond this is truncated when it is reset.
_WAL_KEEP_BYTES = 64 * 1024 * 1024
_CACHE_KIB = 16_000
#: Smallest length of the index of the WAL.
_SHM_BYTES = 32 * 1024


class SqliteConnection:
    """A connection to the file `path`, for one thread; it is opened at the first use, also after a close.

    Only a writing connection checkpoints: two connections that commit and checkpoint at the same moment have
    damaged files in past versions of SQLite.
    """

    def __init__(
        self,
        path: str,
        *,
        read_only: bool = False,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        """Make a connection; the file is not opened yet.

        `pause` waits for a number of seconds between two tries to lock the file. It returns True to give up
        the lock, as nothing needs it any more.
        """
        self.path = path
        self._read_only = read_only
        self._busy_timeout_s = busy_timeout_s
        self._pause = pause
        self._busy_until = 0.0
        self._connection: apsw.Connection | None = None
        self._wal_pages = 0
        #: Device and inode of the open file.
        self._identity: tuple[int, int] | None = None

    @property
    def is_open(self) -> bool:
        """Return whether this connection has the file open."""
        return self._connection is not None

    @property
    def db(self) -> apsw.Connection:
        """Return the open connection; it raises errors of SQLite (see `translate_errors`)."""
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with self.translate_errors("closing it"):
                connection.close()

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close the file if the block raises: what a full disk left half open does not stay so."""
        try:
            yield
        except BaseException:
            if self._connection is not None:
                connection, self._connection = self._connection, None
                # The error of the block says what is wrong; without an open transaction nothing is lost.
                connection.close(True)
            raise

    def fetch_row(self, sql: str, values: Sequence[SqlValue]) -> tuple[Any, ...]:
        """Return the first row of a statement, which must have one."""
        row: tuple[Any, ...] = self.db.execute(sql, values).fetchall()[0]
        return row

    def check_name(self) -> None:
        """Check that the path still names the open file.

        Raises:
            StoreGone: the file was removed, or another one has taken its place.
        """
        # By stat alone: opening and closing the file would drop all locks that this process has on it.
        try:
            figures = os.stat(self.path)
            found = (figures.st_dev, figures.st_ino)
        except FileNotFoundError:
            found = None
        if self._identity is not None and found != self._identity:  # guard: store-file-is-named
            what = "was removed" if found is None else "was replaced by another file"
            raise StoreGone(f"{self.path} {what} while the server used it")

    def fetch_meta(self, name: str) -> int:
        """Return a number of the table `meta`, 0 if it is missing."""
        row = self.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return 0 if row is None else int(row[0])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit the writes of the block, or none of them if the block raises."""
        db = self.db
        # IMMEDIATE: a transaction that reads first may be refused at its first write, whatever the timeout.
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    @contextmanager
    def time_limit(self, limit_s: float) -> Iterator[None]:
        """End the block without an error when its statements have taken `limit_s`."""
        deadline_mono = time.monotonic() + limit_s
        self.db.set_progress_handler(lambda: time.monotonic() > deadline_mono, _LIMIT_STEPS)
        try:
            yield
        except apsw.InterruptError:
            return
        finally:
            self.db.set_progress_handler(None)

    @contextmanager
    def small_cache(self) -> Iterator[None]:
        """Keep almost no pages in memory, so that a large transaction writes to the WAL before its end."""
        self.db.pragma("cache_size", 10)
        try:
            yield
        finally:
            self.db.pragma("cache_size", -_CACHE_KIB)

    def checkpoint_if_due(self) -> bool:
        """Copy the WAL into the file if it has `CHECKPOINT_PAGES` or more; return whether that was tried."""
        if self._wal_pages < CHECKPOINT_PAGES:
            return False
        with self.translate_errors("copying its log"):
            self.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._wal_pages = 0
        return True

    @contextmanager
    def translate_errors(self, doing: str) -> Iterator[None]:
        """Raise errors of SQLite in the block as `RunnerError`; `doing` is part of their messages.

        Raises:
            StoreFull: the disk is full.
            StoreUnavailable: locked for too long, read-only.
            StoreCorrupt: the file is damaged.
        """
        try:
            yield
        except apsw.Error as error:
            raise _translate_error(error, doing, self.path) from error
        except OSError as error:
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            kind = StoreFull if is_full else StoreUnavailable
            raise kind(f"{self.path}: {doing} failed: {error}") from error

    def _open(self) -> apsw.Connection:
        if self._read_only:
            db = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READONLY)
            # Without this, the last connection to close checkpoints, and that may be a reading one.
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            db.pragma("query_only", True)
        else:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            # Inputs may be private; the log and its index take the mode of this file.
            Path(self.path).touch(mode=0o600)
            db = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
            db.set_wal_hook(self._record_wal_pages)
            db.pragma("synchronous", "FULL")  # guard: synced-commits
            db.pragma("journal_size_limit", _WAL_KEEP_BYTES)
            db.pragma("cache_size", -_CACHE_KIB)
        figures = os.stat(self.path)
        self._identity = (figures.st_dev, figures.st_ino)
        if self._pause is None:
            db.set_busy_timeout(round(self._busy_timeout_s * 1000))
        else:
            db.set_busy_handler(self._wait_for_lock)
        return db

    def _wait_for_lock(self, tries: int) -> bool:
        """Wait before the next try to lock the file; return False to give up."""
        if self._pause is None:
            return False
        now = time.monotonic()
        if tries == 0:
            self._busy_until = now + self._busy_timeout_s
        return now < self._busy_until and not self._pause(_BUSY_PAUSE_S)

    def _record_wal_pages(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK


def sqlite_version() -> str:
    """Return the version of the SQLite library in use."""
    return apsw.sqlite_lib_version()


def _full_error(error: apsw.Error, doing: str, path: str) -> StoreFull:
    why = "the disk is full (or a limit on the file's size is reached)"
    return StoreFull(f"{path}: {doing} failed: {why} ({error})")


def _has_no_room(path: str) -> bool:
    """Return whether the file system of the file has less room than the index of a log takes at least."""
    try:
        figures = os.statvfs(Path(path).parent)
    except OSError:
        return False
    return figures.f_bavail * figures.f_frsize < _SHM_BYTES or (figures.f_files > 0 and figures.f_favail == 0)


def _translate_error(error: apsw.Error, doing: str, path: str) -> RunnerError:
    match error:
        case apsw.CorruptError() | apsw.NotADBError():
            return corrupt_file_error(path, str(error))
        case apsw.BusyError() | apsw.LockedError():
            why = "another process holds it locked"
        case apsw.FullError():
            return _full_error(error, doing, path)
        case apsw.IOError() | apsw.CantOpenError() if _has_no_room(path):
            # SQLite reports a full disk so where it creates or lengthens the index of its log.
            return _full_error(error, doing, path)
        case apsw.ReadOnlyError() | apsw.PermissionsError():
            why = "the file or its folder is read-only"
        case apsw.CantOpenError():
            why = "the file cannot be opened"
        case apsw.IOError() | apsw.NoMemError():
            why = "reading or writing failed"
        case _:
            return RunnerError(f"{path}: {doing} failed: {error}")
    return StoreUnavailable(f"{path}: {doing} failed: {why} ({error})")
