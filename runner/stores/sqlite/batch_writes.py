"""Effect: writes one batch into the tables of the SQLite file."""

from __future__ import annotations

from collections.abc import Sequence

from runner.errors import RunnerError
from runner.jobs.job import Job
from runner.stores.sqlite import statements
from runner.stores.sqlite.sqlite_connection import SqliteConnection
from runner.stores.store import WriteBatch


def write_batch(connection: SqliteConnection, batch: WriteBatch) -> int:
    """Write the batch inside the caller's transaction; return the number of its stale updates.

    Raises:
        RunnerError: a new job has the number of an existing one.
    """
    db, stale = connection.db, frozenset[int]()
    if batch.inserts:
        _insert(connection, batch.inserts)
    outputs, events = batch.outputs, batch.events
    if batch.updates:
        stale = _update(connection, batch.updates)
        if stale:
            outputs = [output for output in outputs if output[0] not in stale]
            events = [chunk for chunk in events if chunk.job_number not in stale]
    if outputs:
        db.executemany(statements.INSERT_OUTPUT, outputs)
    if events:
        db.executemany(statements.INSERT_EVENTS, statements.chunk_rows(events))
    if batch.trims:
        # Chunks of a job are in order: `first_seq` bounds the search for the others.
        sql = "DELETE FROM events WHERE n = ? AND first_seq < ? AND last_seq < ?"
        db.executemany(sql, ((n, seq, seq) for n, seq in batch.trims))
    if batch.deletes:
        # The highest number of a job in the table is the last one assigned. It must outlive its job.
        db.execute(f"UPDATE meta SET value = ({statements.LAST_N}) WHERE name = 'last_n'")
        for table in ("jobs", "inputs", "outputs", "events", "tags"):
            db.executemany(f"DELETE FROM {table} WHERE n = ?", ((n,) for n in batch.deletes))
    for name, value in batch.values:
        if value is None:
            db.execute("DELETE FROM vals WHERE name = ?", (name,))
        else:
            db.execute("INSERT OR REPLACE INTO vals (name, body) VALUES (?, ?)", (name, value))
    if batch.damaged:
        db.executemany(statements.SET_ROW_ASIDE, ((job_id, why, n) for n, job_id, why in batch.damaged))
    return len(stale)


def _insert(connection: SqliteConnection, inserts: Sequence[tuple[Job, bytes]]) -> None:
    """Insert the jobs with their inputs and tags.

    An insert of a job that is stored already changes its row instead, as a batch of unknown outcome may be
    written twice; an insert under another job's number changes no row.
    """
    db = connection.db
    before = db.total_changes()
    db.executemany(statements.INSERT_JOB, [statements.insert_row(job) for job, _ in inserts])
    if db.total_changes() - before != len(inserts):
        raise RunnerError(f"{connection.path}: a new job has the number of one that is stored already")
    db.executemany(statements.INSERT_INPUT, [(job.number, body) for job, body in inserts])
    tags = [(tag, job.number) for job, _ in inserts for tag in job.terms.tags]
    if tags:
        db.executemany("INSERT OR IGNORE INTO tags (tag, n) VALUES (?, ?)", tags)


def _update(connection: SqliteConnection, updates: Sequence[Job]) -> frozenset[int]:
    """Write the changed jobs; return the numbers of those that a later attempt or a delete has superseded.

    The count of changed rows tells whether there are any, so that the usual case needs no second query.
    """
    db = connection.db
    before = db.total_changes()
    db.executemany(statements.UPDATE_JOB, [statements.update_row(job) for job in updates])
    if db.total_changes() - before == len(updates):
        return frozenset()
    sql = "SELECT 1 FROM jobs WHERE n = ? AND attempt <= ?"
    return frozenset(
        job.number for job in updates if db.execute(sql, (job.number, job.attempt)).fetchone() is None
    )
