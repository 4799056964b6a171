"""Effect: prepares a SQLite file for the first commit: checks, migrations, and a WAL of full length."""

from __future__ import annotations

import time
from pathlib import Path

from runner.errors import RefusedStart, StoreUnavailable
from runner.stores.sqlite import migrations, statements, wal_check
from runner.stores.sqlite.corruption import corrupt_file_error
from runner.stores.sqlite.sqlite_connection import SqliteConnection

#: Longest file check at start, whatever the size of the file.
CHECK_LIMIT_S = 1.0
#: Length of the WAL written at start; commits then overwrite it, so the file system's journal need not
#: record a new length with every fsync.
_WAL_FILL_BYTES = 5 * 1024 * 1024


def prepare(connection: SqliteConnection, *, check_limit_s: float = CHECK_LIMIT_S) -> None:
    """Check the file and migrate it to the newest schema.

    The check stops after `check_limit_s`: it reads small and vital tables first, then as much of the large
    ones as time allows.

    Raises:
        RefusedStart: the file is another program's, or a newer version of this one wrote it.
        StoreCorrupt: the file or its log is damaged; nothing was changed.
        StoreUnavailable: its file system can hold no write-ahead log.
    """
    _check_log(connection)
    _refuse_foreign(connection)
    if connection.db.pragma("journal_mode", "wal") != "wal":
        raise StoreUnavailable(f"{connection.path}: this file system can hold no write-ahead log")
    _check_tables(connection, check_limit_s)
    with connection.transaction():
        _migrate(connection)
        _check_counters(connection)
    _lengthen_wal(connection)


def _check_log(connection: SqliteConnection) -> None:
    """Refuse a damaged log: SQLite would skip the commits behind the damage without an error."""
    log = Path(f"{connection.path}-wal")
    # Read only before SQLite opens it: closing a file drops all locks that this process has on it.
    text = log.read_bytes() if not connection.is_open and log.exists() else b""
    # Read twice: a log that an older coordinator still writes changes, and then proves nothing.
    if wal_check.is_damaged(text) and log.read_bytes() == text:
        raise corrupt_file_error(str(log), "commits lie behind a frame that is not whole")


def _refuse_foreign(connection: SqliteConnection) -> None:
    """Refuse a file that another program wrote; an empty file becomes a store."""
    owner = connection.db.pragma("application_id")
    if owner == migrations.APPLICATION_ID:
        return
    (tables,) = connection.fetch_row("SELECT count(*) FROM sqlite_schema", ())
    if owner != 0 or tables:
        what = "is an SQLite file of another program; name another path with --store"
        raise RefusedStart(f"{connection.path} {what}")


def _check_tables(connection: SqliteConnection, limit_s: float) -> None:
    """Refuse a file with a damaged table, as far as SQLite's quick check gets within the limit."""
    db = connection.db
    with connection.time_limit(limit_s):
        for table in (name for name in migrations.CHECKED_TABLES if db.table_exists("main", name)):
            for (line,) in db.execute(f"PRAGMA quick_check('{table}')"):
                if line != "ok":
                    raise corrupt_file_error(connection.path, str(line))


def _migrate(connection: SqliteConnection) -> None:
    """Run the migrations that the file lacks; refuse one with more than this version knows."""
    db = connection.db
    db.execute(migrations.MIGRATIONS_TABLE)
    (version,) = connection.fetch_row("SELECT coalesce(max(version), 0) FROM migrations", ())
    newest = migrations.MIGRATIONS[-1].version
    if version > newest:
        raise RefusedStart(
            f"{connection.path} has schema version {version} of a newer runner; this one knows up to "
            f"{newest}: start the newer one, or name another path with --store"
        )
    for name, function in statements.BODY_FUNCTIONS.items():
        db.create_scalar_function(name, function)  # type: ignore[arg-type]  # they get the blob alone
    for migration in migrations.MIGRATIONS[version:]:
        for statement in migration.statements:
            db.execute(statement)
        db.execute(
            "INSERT INTO migrations VALUES (?, ?, ?)", (migration.version, migration.name, time.time())
        )
    db.pragma("application_id", migrations.APPLICATION_ID)


def _check_counters(connection: SqliteConnection) -> None:
    """Refuse damaged counters: begun from 0 again, they would fence nobody and give a number twice."""
    for name, value in connection.db.execute("SELECT name, value FROM meta"):
        if not isinstance(value, int):
            raise corrupt_file_error(connection.path, f"the table meta holds no number under {name!r}")


def _lengthen_wal(connection: SqliteConnection) -> None:
    """Write a large transaction with a tiny cache, so that its pages spill, and roll it back."""
    db = connection.db
    with connection.small_cache():
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute("INSERT INTO vals (name, body) VALUES ('', zeroblob(?))", (_WAL_FILL_BYTES,))
        finally:
            # A full disk makes SQLite roll back by itself.
            if db.in_transaction:
                db.execute("ROLLBACK")
