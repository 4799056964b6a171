"""Pure: the SQL statements of the SQLite store, and the conversion of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from runner.jobs.job import Job
from runner.stores.damaged_row import DAMAGED, STATES
from runner.stores.queued_groups import MILLIS_MAX, GroupKey, StoredGroup, traits_text
from runner.stores.sqlite.job_query_sql import SqlValue
from runner.stores.sqlite.row_check import UNREADABLE, group_damage, number_sql, read_text, text_sql
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
#: The input or output of one job, and whether it is JSON if it is longer than the second value: SQLite checks
#: long ones, as it does not hold the interpreter's lock meanwhile.
PAYLOAD = {
    which: f"""
SELECT CAST(body AS BLOB), iif(octet_length(body) > ?2, json_valid(body), 1) FROM {which}s WHERE n = ?1"""
    for which in ("input", "output")
}


def _from_body(read: Callable[[Job], SqlValue]) -> Callable[[Any], SqlValue]:
    """Return an SQL function of a body; NULL for one that can't be read, as a start must not fail over it."""

    def value(body: Any) -> SqlValue:
        try:
            return read(_job_decoder.decode(body))
        except UNREADABLE:
            return None

    return value


#: SQL functions by which migrations fill new columns from the body of a job.
BODY_FUNCTIONS: dict[str, Callable[[Any], SqlValue]] = {
    "job_vram_bytes": _from_body(lambda job: job.terms.vram_bytes),
    "job_traits": _from_body(traits_text),
    "job_start_by": _from_body(lambda job: job.start_by),
}

#: The named values whose names begin with a text, given with its length.
VALUES = f"""
SELECT {text_sql("name")}, iif(typeof(body) = 'blob', body, NULL) FROM vals
WHERE substr(name, 1, ?) = ? ORDER BY name"""
#: The number of jobs by queue and state.
COUNTS = f"SELECT {text_sql('queue')}, {text_sql('state')}, count(*) FROM jobs GROUP BY queue, state"
#: Each step of a statement takes the interpreter's lock again, which costs up to 5 ms beside a busy loop. So
#: reads return one row: the number of bodies, and all bodies in one hexadecimal text (see `join_bodies`).
#: The third value holds what `job_marks` returns of the bodies, unless a row is damaged.
JOBS = """
SELECT count(*), group_concat(hex(body), '' ORDER BY n {order}),
    group_concat(id || ' ' || state || ' ' || attempt, ',' ORDER BY n {order})
FROM jobs WHERE n IN ({numbers})"""
RUNNING_NUMBERS = "SELECT n FROM jobs INDEXED BY jobs_running WHERE state = 'running'"
#: Job numbers from a text of `numbers_json`.
GIVEN_NUMBERS = "SELECT value FROM json_each(?)"
#: Jobs that are counted under no state: their queue or state is damaged.
UNCOUNTED_NUMBERS = f"""
SELECT n FROM jobs WHERE typeof(queue) != 'text' AND state IS NOT '{DAMAGED}'
    OR state NOT IN ({", ".join(f"'{state}'" for state in sorted({*STATES, DAMAGED}))})"""
#: Number, id, queue and state of the jobs whose numbers a text of `numbers_json` lists.
DAMAGED_COLUMNS = f"""
SELECT n, {text_sql("id")}, {text_sql("queue")}, {text_sql("state")} FROM jobs
WHERE n IN (SELECT value FROM json_each(?))"""
#: Rows that are set aside: number, id and reason.
SET_ASIDE = f"SELECT n, id, reason FROM jobs WHERE state = '{DAMAGED}' AND n > ? AND n < ? ORDER BY n LIMIT ?"
SET_ROW_ASIDE = f"UPDATE jobs SET state = '{DAMAGED}', id = ?, reason = ? WHERE n = ?"
# A job that waits for a time has a reason for it. One without is ready, even if its `ready_at` is to come: it
# was accepted while the clock was ahead.
_IS_READY = "(ready_at <= ?1 OR (reason IS NULL AND typeof(ready_at) = 'real'))"
_GROUP_COLUMNS = ", ".join(
    (
        text_sql("queue"),
        text_sql("handler"),
        number_sql("priority"),
        number_sql("vram_bytes"),
        text_sql("traits"),
    )
)
#: One row for each group, with the numbers of the jobs that are ready and have no latest start: usually all.
QUEUED = f"""
SELECT {_GROUP_COLUMNS}, min(min(ready_at), ?1), group_concat(n)
FROM jobs INDEXED BY jobs_queued
WHERE state = 'queued' AND {_IS_READY} AND start_by IS NULL
GROUP BY handler, queue, priority, vram_bytes, traits"""
# Clamped first: beyond 64 bits the product is a float, and its text no integer. -1: no number at all.
_CLAMPED_MS = f"min(max({{0}} * 1000, 0), {MILLIS_MAX})"
_MILLIS = (
    "iif(typeof({0}) != 'real', -1, "
    f"CAST({_CLAMPED_MS} AS INTEGER) + ({_CLAMPED_MS} > CAST({_CLAMPED_MS} AS INTEGER)))"
)
#: One row for each group, with number, two times (see `to_millis`) and reason of each of the other jobs.
QUEUED_WITH_TIMES = f"""
SELECT {_GROUP_COLUMNS},
    min(iif({_IS_READY}, min(ready_at, ?1), NULL)), group_concat(
    n || ' ' || iif({_IS_READY} IS TRUE, 0, {_MILLIS.format("ready_at")})
    || ' ' || iif(start_by IS NULL, 0, {_MILLIS.format("start_by")})
    || ' ' || iif(reason IS NULL, '', iif(reason IN ('scheduled', 'retry_backoff'), reason, '?')))
FROM jobs INDEXED BY jobs_queued
WHERE state = 'queued' AND ({_IS_READY} AND start_by IS NULL) IS NOT TRUE
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


def job_marks(jobs: Iterable[Job]) -> str:
    """Return the text that the columns of these jobs have as third value of JOBS."""
    return ",".join(f"{job.id} {job.state} {job.attempt}" for job in jobs)


#: Job number -> why its columns can't be used.
Damage = dict[int, str]


def stored_groups(
    ready_rows: Iterable[tuple[Any, ...]], timed_rows: Iterable[tuple[Any, ...]]
) -> tuple[list[StoredGroup], Damage]:
    """Return the groups in rows of QUEUED and QUEUED_WITH_TIMES, without the damaged jobs, and those."""
    groups: dict[GroupKey, StoredGroup] = {}
    damage: Damage = {}
    for *columns, oldest, text in ready_rows:
        key = _group_columns(*columns)
        why = group_damage(*key)
        group = _get_or_add_group(groups, key, oldest) if why is None else None
        for part in _split_list(text):
            numbers = map(int, part.split(","))
            if group is not None:
                group.ready.extend(numbers)
            else:
                damage |= dict.fromkeys(numbers, str(why))
    for *columns, oldest, text in timed_rows:
        key = _group_columns(*columns)
        why = group_damage(*key)
        group = _get_or_add_group(groups, key, oldest) if why is None else None
        for part in _split_list(text):
            for entry in part.split(","):
                number, ready, start_by, reason = entry.split(" ")
                bad_column = _damaged_column(ready, start_by, reason)
                if group is None or bad_column is not None:
                    damage[int(number)] = why or f"column {bad_column} holds no value of its kind"
                else:
                    group.add(int(number), int(ready), int(start_by), reason)
    return [group for group in groups.values() if not group.is_empty], damage


def _group_columns(queue: str, handler: str, priority: Any, vram_bytes: Any, traits: str) -> tuple[Any, ...]:
    """Return the values of _GROUP_COLUMNS, in the order of a `GroupKey`."""
    return read_text(queue), read_text(handler), priority, vram_bytes, read_text(traits)


def _damaged_column(ready: str, start_by: str, reason: str) -> str | None:
    """Return the damaged one of the columns in an entry of QUEUED_WITH_TIMES."""
    return (
        "ready_at"
        if ready == "-1"
        else "start_by"
        if start_by == "-1"
        else "reason"
        if reason == "?"
        else None
    )


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
