"""Pure: the SQL statements of the SQLite store, and the conversion of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from runner.jobs.job import Job
from runner.stores.queued_groups import MILLIS_MAX, GroupKey, StoredGroup, traits_text
from runner.stores.sqlite.job_query_sql import SqlValue
from runner.stores.store import EventChunk

_encode = msgspec.msgpack.Encoder().encode
_job_decoder = msgspec.msgpack.Decoder(Job)
#: Length of the pieces in which a list of numbers is parsed.
_LIST_PART_CHARS = 256 * 1024

#: A batch of unknown outcome may be committed twice: the second insert of a job updates its row, unless the
#: number belongs to another job or a later attempt is stored.
INSERT_JOB = """
INSERT INTO jobs
    (n, id, handler, queue, priority, state, reason, attempt, created_at, ready_at, finished_at,
     vram_bytes, traits, start_by, tenant, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (n) DO UPDATE SET
    priority = excluded.priority, state = excluded.state, reason = excluded.reason,
    attempt = excluded.attempt, ready_at = excluded.ready_at, finished_at = excluded.finished_at,
    vram_bytes = excluded.vram_bytes, traits = excluded.traits, start_by = excluded.start_by,
    body = excluded.body
WHERE jobs.id = excluded.id AND jobs.attempt <= excluded.attempt"""
#: Changes no row if a later attempt is stored: the update is stale.
UPDATE_JOB = """
UPDATE jobs SET
    queue = ?, priority = ?, state = ?, reason = ?, attempt = ?, ready_at = ?, finished_at = ?,
    vram_bytes = ?, traits = ?, start_by = ?, body = ?
WHERE n = ? AND attempt <= ?"""
#: The highest job number ever assigned. `meta` has it only since the last delete: to write it at each insert
#: would be one more page in every commit.
LAST_N = "SELECT max(value, coalesce((SELECT max(n) FROM jobs), 0)) FROM meta WHERE name = 'last_n'"
#: SQLite casts payloads, which are bound as bytes: Python decodes nothing, so no payload can fail a batch.
INSERT_INPUT = "INSERT OR REPLACE INTO inputs (n, body) VALUES (?, CAST(? AS TEXT))"
INSERT_OUTPUT = "INSERT OR REPLACE INTO outputs (n, body) VALUES (?, CAST(? AS TEXT))"
INSERT_EVENTS = "INSERT OR REPLACE INTO events (n, first_seq, last_seq, body) VALUES (?, ?, ?, ?)"
#: The input or output of one job.
PAYLOAD = {
    "input": "SELECT CAST(body AS BLOB) FROM inputs WHERE n = ?",
    "output": "SELECT CAST(body AS BLOB) FROM outputs WHERE n = ?",
}

#: SQL functions by which migrations fill new columns from the body of a job.
BODY_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "job_vram_bytes": lambda body: _job_decoder.decode(body).terms.vram_bytes,
    "job_traits": lambda body: traits_text(_job_decoder.decode(body)),
    "job_start_by": lambda body: _job_decoder.decode(body).start_by,
}

#: The number of jobs by queue and state.
COUNTS = "SELECT queue, state, count(*) FROM jobs GROUP BY queue, state"
#: Each step of a statement takes the interpreter's lock again, which costs up to 5 ms beside a busy loop. So
#: reads return one row: the number of bodies, and all bodies in one hexadecimal text (see `join_bodies`).
RUNNING = """
SELECT count(*), group_concat(hex(body), '' ORDER BY n) FROM jobs INDEXED BY jobs_running
WHERE state = 'running'"""
#: Jobs by number; the numbers come as text from `numbers_json`.
JOBS = """
SELECT count(*), group_concat(hex(body), '' ORDER BY n) FROM jobs
WHERE n IN (SELECT value FROM json_each(?))"""
#: One row for each group, with the numbers of the jobs that are ready and have no latest start: usually all.
QUEUED = """
SELECT queue, handler, priority, vram_bytes, traits, min(ready_at), group_concat(n)
FROM jobs INDEXED BY jobs_queued
WHERE state = 'queued' AND ready_at <= ? AND start_by IS NULL
GROUP BY handler, queue, priority, vram_bytes, traits"""
# Clamped first: beyond 64 bits the product is a float, and its text no integer.
_CLAMPED_MS = f"min(max({{0}} * 1000, 0), {MILLIS_MAX})"
_MILLIS = f"CAST({_CLAMPED_MS} AS INTEGER) + ({_CLAMPED_MS} > CAST({_CLAMPED_MS} AS INTEGER))"
#: One row for each group, with number, two times (see `to_millis`) and reason of each of the other jobs.
QUEUED_WITH_TIMES = f"""
SELECT queue, handler, priority, vram_bytes, traits, min(iif(ready_at > ?1, NULL, ready_at)), group_concat(
    n || ' ' || iif(ready_at > ?1, {_MILLIS.format("ready_at")}, 0)
    || ' ' || coalesce({_MILLIS.format("start_by")}, 0) || ' ' || coalesce(reason, ''))
FROM jobs INDEXED BY jobs_queued
WHERE state = 'queued' AND (ready_at > ?1 OR start_by IS NOT NULL)
GROUP BY handler, queue, priority, vram_bytes, traits"""
#: The inputs or outputs of several jobs, as one text of numbers and hexadecimal bodies.
PAYLOADS = {
    which: f"""
SELECT group_concat(n || ' ' || hex(body)) FROM {which}s
WHERE n IN (SELECT value FROM json_each(?))"""
    for which in ("input", "output")
}
#: The chunks of one page of a job's log. They are chosen by length alone: otherwise one page of a long log
#: would read all bodies in the window.
EVENTS = """
SELECT count(*), group_concat(hex(body), '' ORDER BY first_seq) FROM events
WHERE n = ?1 AND first_seq IN (SELECT first_seq FROM (
    SELECT first_seq, sum(size) OVER (ORDER BY first_seq) - size AS before FROM (
        SELECT first_seq, length(body) AS size FROM events
        WHERE n = ?1 AND last_seq > ?2 AND first_seq >= coalesce(
            (SELECT max(first_seq) FROM events WHERE n = ?1 AND first_seq <= ?2), 0)
        ORDER BY first_seq LIMIT ?3))
    WHERE before <= ?4)"""


def insert_row(job: Job) -> tuple[SqlValue, ...]:
    """Return the values of INSERT_JOB."""
    return (
        job.number,
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
        job.terms.vram_bytes,
        traits_text(job),
        job.start_by,
        job.terms.tenant or None,
        _encode(job),
    )


def update_row(job: Job) -> tuple[SqlValue, ...]:
    """Return the values of UPDATE_JOB."""
    return (
        job.queue,
        job.priority,
        job.state,
        job.reason,
        job.attempt,
        job.ready_at,
        job.finished_at,
        job.terms.vram_bytes,
        traits_text(job),
        job.start_by,
        _encode(job),
        job.number,
        job.attempt,
    )


def chunk_rows(chunks: Sequence[EventChunk]) -> Iterator[tuple[SqlValue, ...]]:
    """Return the values of INSERT_EVENTS, one row a chunk."""
    return ((chunk.job_number, chunk.first_seq, chunk.last_seq, chunk.body) for chunk in chunks)


def join_bodies(count: int, bodies: str | None) -> bytes:
    """Return `count` msgpack values, joined in one hexadecimal text, as one msgpack list."""
    return b"\xdd" + count.to_bytes(4, "big") + bytes.fromhex(bodies or "")


def numbers_json(job_numbers: Sequence[int]) -> str:
    """Return job numbers as a JSON list, in the form that statements expect."""
    return f"[{','.join(map(str, job_numbers))}]"


def stored_groups(
    ready_rows: Iterable[tuple[Any, ...]], timed_rows: Iterable[tuple[Any, ...]]
) -> list[StoredGroup]:
    """Return the groups in rows of QUEUED and QUEUED_WITH_TIMES."""
    groups: dict[GroupKey, StoredGroup] = {}
    for *key, oldest, text in ready_rows:
        group = _get_or_add_group(groups, key, oldest)
        for part in _split_list(text):
            group.ready.extend(map(int, part.split(",")))
    for *key, oldest, text in timed_rows:
        group = _get_or_add_group(groups, key, oldest)
        for part in _split_list(text):
            for entry in part.split(","):
                number, ready, start_by, reason = entry.split(" ")
                group.add(int(number), int(ready), int(start_by), reason)
    return list(groups.values())


def _get_or_add_group(
    groups: dict[GroupKey, StoredGroup], key: Sequence[Any], oldest: float | None
) -> StoredGroup:
    group_key = GroupKey(*key)
    group = groups.setdefault(group_key, StoredGroup(group_key))
    if oldest is not None:
        group.add_ready_time(oldest)
    return group


def _split_list(text: str) -> Iterator[str]:
    """Split a long list into pieces, as all its entries at once take ten times the memory of the text."""
    start = 0
    while start < len(text):
        end = text.find(",", start + _LIST_PART_CHARS)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1
