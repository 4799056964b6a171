"""Pure: the statements of the SQLite store and the rows that go into and come out of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from runner.job import Job
from runner.stores import EventChunk
from runner.stores.query import Value

_encode = msgspec.msgpack.Encoder().encode

INSERT_JOB = """
INSERT INTO jobs
    (n, id, handler, queue, priority, state, reason, attempt, created_at, ready_at, finished_at, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (n) DO UPDATE SET
    priority = excluded.priority, state = excluded.state, reason = excluded.reason,
    attempt = excluded.attempt, ready_at = excluded.ready_at, finished_at = excluded.finished_at,
    body = excluded.body
WHERE jobs.id = excluded.id AND jobs.attempt <= excluded.attempt"""
UPDATE_JOB = """
UPDATE jobs SET
    queue = ?, priority = ?, state = ?, reason = ?, attempt = ?, ready_at = ?, finished_at = ?, body = ?
WHERE n = ? AND attempt <= ?"""
#: Kept apart only where jobs were deleted: a table more to write would be a page more in every commit.
LAST_N = "SELECT max(value, coalesce((SELECT max(n) FROM jobs), 0)) FROM meta WHERE name = 'last_n'"
# CAST keeps bytes bytes on this side: no decoding, and nothing in a payload can fail a batch.
INSERT_INPUT = "INSERT OR REPLACE INTO inputs (n, body) VALUES (?, CAST(? AS TEXT))"
INSERT_OUTPUT = "INSERT OR REPLACE INTO outputs (n, body) VALUES (?, CAST(? AS TEXT))"
INSERT_EVENTS = "INSERT OR REPLACE INTO events (n, first_seq, last_seq, body) VALUES (?, ?, ?, ?)"
PAYLOAD = {
    "input": "SELECT CAST(body AS BLOB) FROM inputs WHERE n = ?",
    "output": "SELECT CAST(body AS BLOB) FROM outputs WHERE n = ?",
}

# Each step of a statement takes the interpreter's lock again, which beside a busy loop costs up to
# 5 ms. So reads give one row: the number of bodies, and all of them in one hexadecimal text.
LIVE = """
SELECT count(*), max(n), group_concat(hex(body), '' ORDER BY n) FROM (
    SELECT n, body FROM jobs INDEXED BY jobs_live
    WHERE state IN ('queued', 'running') AND n > ? ORDER BY n LIMIT ?)"""
PAYLOADS = {
    which: f"""
SELECT group_concat(n || ' ' || hex(body)) FROM {which}s
WHERE n IN (SELECT value FROM json_each(?))"""
    for which in ("input", "output")
}
# The lengths alone choose the chunks: bodies in the window were all read, for one page of a long log.
EVENTS = """
SELECT count(*), group_concat(hex(body), '' ORDER BY first_seq) FROM events
WHERE n = ?1 AND first_seq IN (SELECT first_seq FROM (
    SELECT first_seq, sum(size) OVER (ORDER BY first_seq) - size AS before FROM (
        SELECT first_seq, length(body) AS size FROM events
        WHERE n = ?1 AND last_seq > ?2 AND first_seq >= coalesce(
            (SELECT max(first_seq) FROM events WHERE n = ?1 AND first_seq <= ?2), 0)
        ORDER BY first_seq LIMIT ?3))
    WHERE before <= ?4)"""


def insert_row(job: Job) -> tuple[Value, ...]:
    """The values of INSERT_JOB."""
    return (
        job.n,
        job.id,
        job.handler,
        job.queue,
        job.priority,
        job.state,
        job.reason,
        job.attempt,
        job.created_at,
        job.ready_at,
        job.finished_at,
        _encode(job),
    )


def update_row(job: Job) -> tuple[Value, ...]:
    """The values of UPDATE_JOB."""
    return (
        job.queue,
        job.priority,
        job.state,
        job.reason,
        job.attempt,
        job.ready_at,
        job.finished_at,
        _encode(job),
        job.n,
        job.attempt,
    )


def chunk_rows(chunks: Sequence[EventChunk]) -> Iterator[tuple[Value, ...]]:
    """The values of INSERT_EVENTS, one row a chunk."""
    return ((chunk.n, chunk.first_seq, chunk.last_seq, chunk.body) for chunk in chunks)


def joined(count: int, bodies: str | None) -> bytes:
    """One msgpack list of `count` values that came as one hexadecimal text."""
    return b"\xdd" + count.to_bytes(4, "big") + bytes.fromhex(bodies or "")
