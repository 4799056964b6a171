"""Rows that damage has changed are found, left out of what reads return, and set aside."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import apsw
import pytest

from runner.errors import JobDamaged, StoreCorrupt
from runner.jobs.job import JobTerms
from runner.jobs.job_query import JobQuery
from runner.stores.damaged_row import DAMAGED, DamagedRow
from runner.stores.sqlite.sqlite_store import SqliteStore
from runner.stores.store import WriteBatch
from tests.runner.stores.store_data import chunk, job

NOW = 1_000.0
#: Before bytes that are stored as a text, which need not be valid.
TEXT_OF = b"text:"
GARBAGE = (
    None, -1, 7, 2**62, 1.5e300, float("inf"), "", "x, y z", "9.2233720368547758e+18", "[null", "[1,2,3]",
    "[[]]", b"", b"\xff\x00", b"\x93\x01", TEXT_OF + b"\xff", "queued", "running", "succeeded",
)  # fmt: skip
#: Columns of jobs; all but the row's number, which is the row.
JOB_COLUMNS = (
    "id", "handler", "queue", "priority", "state", "reason", "attempt", "created_at", "ready_at",
    "finished_at", "vram_bytes", "traits", "start_by", "tenant", "body",
)  # fmt: skip
OTHER_COLUMNS = (("inputs", "body"), ("outputs", "body"), ("events", "body"))


def fill(path: Path, count: int = 24) -> None:
    """Write jobs in all states, with inputs, outputs, events and a value."""
    store = SqliteStore(str(path))
    batch = WriteBatch(values=[("describe/x", b"{}")])
    for n in range(1, count + 1):
        if n % 4 == 0:
            made = job(n, state="succeeded", attempt=1, output_bytes=1)
            batch.outputs.append((n, b"7"))
        elif n % 4 == 1:
            made = job(n, state="running", attempt=1)
        elif n % 8 == 2:
            made = job(n, reason="scheduled", ready_at=NOW + n, terms=JobTerms(queue_timeout_s=9.0))
        else:
            made = job(n, terms=JobTerms(timeout_s=600.0, metadata=b'{"a": 1}'))
        batch.inserts.append((made, b'{"n": 1}'))
        batch.events.append(chunk(n, 1, 3))
    store.commit(store.take_epoch(), batch)
    store.close()


def damage(path: Path, table: str, column: str, number: int, value: apsw.SQLiteValue) -> bool:
    """Overwrite one column of a job's row; return whether the schema takes the value."""
    connection = apsw.Connection(str(path))
    mark = "?"
    if isinstance(value, bytes) and value.startswith(TEXT_OF):
        mark, value = "CAST(? AS TEXT)", value.removeprefix(TEXT_OF)
    try:
        connection.execute(f"UPDATE OR IGNORE {table} SET {column} = {mark} WHERE n = ?", (value, number))
        return connection.changes() > 0
    except apsw.ConstraintError:
        return False
    finally:
        connection.close()


def read_everything(store: SqliteStore, numbers: list[int]) -> tuple[set[int], set[int]]:
    """Read as a start and the API do; return the numbers of the jobs found, and of those queued."""
    store.count_jobs()
    groups = store.load_queued_groups(NOW)
    queued = {n for group in groups for n in group.ready}
    queued |= {n for group in groups for due in group.delayed.values() for n in due.numbers}
    store.load_running_jobs()
    store.load_values("")
    found = {one.number for one in store.find_jobs(JobQuery(limit=500))}
    store.find_jobs(JobQuery(states=["queued", "failed"], limit=3, order="asc"))
    store.find_jobs(JobQuery(inputs=[("n", b"1")]))
    store.load_jobs(numbers)
    for which in ("input", "output"):
        store.load_payloads(numbers, which)
    for number in numbers:
        for read in (
            lambda n: store.load_payload(n, "input"),
            lambda n: store.load_payload(n, "output"),
            lambda n: store.load_events(n, 0, 1_000_000),
        ):
            with suppress(JobDamaged):
                read(number)
    return found, queued


@pytest.mark.parametrize("seed", range(12))
def test_garbage_in_any_column_costs_its_own_job_only(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "runner.db"
    fill(path)
    numbers = list(range(1, 25))
    chance = random.Random(seed)
    hit: set[int] = set()
    for number in chance.sample(numbers, 9):
        table, column = chance.choice([*(("jobs", name) for name in JOB_COLUMNS), *OTHER_COLUMNS])
        if damage(path, table, column, number, chance.choice(GARBAGE)):
            hit.add(number)
    whole = set(numbers) - hit
    queued = {n for n in whole if n % 4 in (2, 3)}
    store = SqliteStore(str(path))
    epoch = store.take_epoch()

    found, planned = read_everything(store, numbers)
    assert found >= whole and planned >= queued
    named = store.take_damaged()
    assert {row.number for row in named} <= hit
    store.commit(epoch, WriteBatch(damaged=[(row.number, row.id, row.reason) for row in named]))

    found, planned = read_everything(store, numbers)
    assert found >= whole and not found & {row.number for row in named}
    assert planned >= queued and not planned & {row.number for row in named}
    assert store.count_jobs().get(("", DAMAGED), 0) == len(named)
    # One that is set aside is known by its id, with the reason, until it is deleted.
    assert [store.find_damaged(row.id) for row in named] == [
        DamagedRow(row.number, row.id, row.reason, "", DAMAGED) for row in named
    ]
    assert [row.number for row in store.list_set_aside(-1, 2**62, 500)] == sorted(row.number for row in named)
    store.commit(epoch, WriteBatch(deletes=[row.number for row in named]))
    assert store.list_set_aside(-1, 2**62, 500) == []
    store.close()


CASES: list[tuple[str, str, int, apsw.SQLiteValue]] = [
    ("jobs", "traits", 3, "[null"),
    ("jobs", "traits", 3, None),
    ("jobs", "priority", 3, "9.2233720368547758e+18"),
    ("jobs", "priority", 3, "high"),
    ("jobs", "vram_bytes", 3, "many"),
    ("jobs", "ready_at", 3, "soon"),
    ("jobs", "start_by", 2, b"\x00"),
    ("jobs", "reason", 2, "a, b c"),
    ("jobs", "queue", 3, b"\xff"),
    ("jobs", "handler", 3, b"h"),
    ("jobs", "queue", 3, TEXT_OF + b"\xff"),
    ("jobs", "id", 4, TEXT_OF + b"\xff"),
    ("jobs", "traits", 3, TEXT_OF + b"\xff"),
    ("jobs", "priority", 3, TEXT_OF + b"\xff"),
    ("jobs", "ready_at", 3, TEXT_OF + b"\xff"),
    ("jobs", "reason", 2, TEXT_OF + b"\xff"),
    ("jobs", "body", 3, TEXT_OF + b"\xff"),
    ("jobs", "state", 3, "waiting"),
    ("jobs", "attempt", 4, "one"),
    ("jobs", "id", 3, b"\x01"),
    ("jobs", "body", 1, b"\xc1"),
    ("jobs", "body", 4, "text"),
    ("inputs", "body", 3, '{"a": '),
    ("inputs", "body", 3, b"\xff\xfe"),
    ("outputs", "body", 4, "NaN"),
    ("outputs", "body", 4, '"' + "x" * 2_000_000),
    ("events", "body", 4, b"\x01\x02"),
]


@pytest.mark.parametrize(
    ("table", "column", "number", "value"), CASES, ids=[f"{t}.{c}={v!r:.20}" for t, c, _, v in CASES]
)
def test_a_damaged_column_is_found(
    tmp_path: Path, table: str, column: str, number: int, value: apsw.SQLiteValue
) -> None:
    path = tmp_path / "runner.db"
    fill(path, 4)
    assert damage(path, table, column, number, value)
    store = SqliteStore(str(path))
    store.take_epoch()
    read_everything(store, [1, 2, 3, 4])
    (row,) = store.take_damaged()
    assert row.number == number and (column if table == "jobs" else table.removesuffix("s")) in row.reason
    store.close()


def test_a_page_is_filled_up_in_place_of_damaged_rows(tmp_path: Path) -> None:
    path = tmp_path / "runner.db"
    fill(path, 12)
    for number in (12, 11, 9):
        damage(path, "jobs", "body", number, b"\xc1")
    store = SqliteStore(str(path))
    store.take_epoch()
    assert [one.number for one in store.find_jobs(JobQuery(limit=4))] == [10, 8, 7, 6]
    assert {row.number for row in store.take_damaged()} == {12, 11, 9}
    store.close()


@pytest.mark.parametrize("name", ["epoch", "last_n"])
def test_a_damaged_counter_refuses_the_start(tmp_path: Path, name: str) -> None:
    """Begun at 1 again, the epoch would fence nobody, and numbers would be given twice."""
    path = tmp_path / "runner.db"
    fill(path, 1)
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE meta SET value = 'many' WHERE name = ?", (name,))
    connection.close()
    store = SqliteStore(str(path))
    with pytest.raises(StoreCorrupt, match=f"meta.*{name}"):
        store.take_epoch()
    store.close()


def test_a_damaged_value_counts_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "runner.db"
    fill(path, 1)
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE vals SET body = 5")
    connection.close()
    store = SqliteStore(str(path))
    store.take_epoch()
    assert store.load_values("") == {}
    store.close()
