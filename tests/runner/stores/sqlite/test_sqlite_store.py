from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec
import pytest

from runner.errors import RefusedStart, StoreCorrupt, StoreGone, StoreUnavailable
from runner.jobs.job import Job, JobTerms
from runner.jobs.job_query import JobQuery
from runner.stores.queued_groups import GroupKey, group_key
from runner.stores.sqlite import migrations, statements
from runner.stores.sqlite.job_query_sql import select_numbers
from runner.stores.sqlite.sqlite_connection import CHECKPOINT_PAGES
from runner.stores.sqlite.sqlite_store import SqliteStore
from runner.stores.store import WriteBatch
from tests.runner.stores.store_data import chunk, inserts, job


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "runner.db"


def opened(path: Path, **options: float) -> SqliteStore:
    return SqliteStore(str(path), **options)  # type: ignore[arg-type]


def filled(path: Path, jobs: int = 400) -> None:
    """A file of some hundred pages, closed."""
    store = opened(path)
    batch = inserts(*(job(n) for n in range(1, jobs + 1)), body=b'"' + b"x" * 2_000 + b'"')
    batch.events = [chunk(n, 1, 5) for n in range(1, jobs + 1)]
    store.commit(store.take_epoch(), batch)
    store.close()


@pytest.fixture
def other(path: Path) -> Iterator[apsw.Connection]:
    """A connection of another program to the same file."""
    filled(path, 1)
    connection = apsw.Connection(str(path))
    yield connection
    connection.close()


def test_jobs_and_epoch_outlive_the_connection(path: Path) -> None:
    store = opened(path)
    store.commit(store.take_epoch(), inserts(job(1)))
    store.close()
    again = opened(path)
    assert again.take_epoch() == 2 and again.find_jobs(JobQuery()) == [job(1)]
    again.close()


def test_a_file_of_the_first_form_is_brought_forward(path: Path) -> None:
    path.parent.mkdir()
    old = apsw.Connection(str(path))
    old.execute(migrations.MIGRATIONS_TABLE)
    for statement in migrations.MIGRATIONS[0].statements:
        old.execute(statement)
    old.execute("INSERT INTO migrations VALUES (1, 'first', 0)")
    old.pragma("application_id", migrations.APPLICATION_ID)
    jobs = [
        job(1, terms=JobTerms(vram_bytes=1 << 30, queue_timeout_s=9.0, timeout_s=600.0), ready_at=5.0),
        job(2, ready_at=50.0, reason="scheduled"),
        job(3, state="running", attempt=1, terms=JobTerms(vram_bytes=7)),
        job(4, state="failed", terms=JobTerms(vram_bytes=8)),
    ]
    for one in jobs:
        columns = "n, id, handler, queue, priority, state, reason, attempt, created_at, ready_at, finished_at"
        values = [one.number, *(getattr(one, name) for name in columns.split(", ")[1:])]
        marks = ", ".join("?" * (len(values) + 1))
        sql = f"INSERT INTO jobs ({columns}, body) VALUES ({marks})"
        old.execute(sql, (*values, msgspec.msgpack.encode(one)))
    old.close()

    store = opened(path)
    epoch = store.take_epoch()
    first, second = sorted(
        store.load_queued_groups(10.0), key=lambda lot: lot.key.vram_bytes or 0, reverse=True
    )
    assert (first.key, list(first.ready)) == (GroupKey("default", "echo", 50, 1 << 30, "[19]"), [1])
    assert (list(first.start_deadlines.times_ms), list(first.start_deadlines.numbers)) == ([14_000], [1])
    assert list(second.delayed["scheduled"].numbers) == [2]
    assert store.load_running_jobs() == [jobs[2]] and store.find_jobs(JobQuery(order="asc")) == jobs
    again = msgspec.structs.replace(jobs[3], state="queued", finished_at=None)
    store.commit(epoch, WriteBatch(updates=[again]))
    assert GroupKey("default", "echo", 50, 8) in {lot.key for lot in store.load_queued_groups(10.0)}
    store.close()


def test_a_file_of_the_second_form_is_brought_forward(path: Path) -> None:
    path.parent.mkdir()
    old = apsw.Connection(str(path))
    old.execute(migrations.MIGRATIONS_TABLE)
    for name, told in statements.BODY_FUNCTIONS.items():
        old.create_scalar_function(name, told)  # type: ignore[arg-type]
    for step in migrations.MIGRATIONS[:2]:
        for statement in step.statements:
            old.execute(statement)
        old.execute("INSERT INTO migrations VALUES (?, ?, 0)", (step.version, step.name))
    old.pragma("application_id", migrations.APPLICATION_ID)
    jobs = [
        job(1, terms=JobTerms(timeout_s=600.0)),
        job(2, terms=JobTerms(timeout_s=590.0)),
        job(3),
        job(4, state="running", attempt=1, terms=JobTerms(timeout_s=1.0)),
        job(5, state="failed", terms=JobTerms(timeout_s=2.0)),
    ]
    for one in jobs:
        columns = "n, id, handler, queue, priority, state, reason, attempt, created_at, ready_at, finished_at"
        values = [one.number, *(getattr(one, name) for name in columns.split(", ")[1:])]
        # As the second form wrote them: the body's terms had fewer fields.
        body = msgspec.msgpack.decode(msgspec.msgpack.encode(one))
        terms = list(Job.__struct_fields__).index("terms")
        body[terms] = body[terms][:7]
        marks = ", ".join("?" * (len(values) + 1))
        old.execute(
            f"INSERT INTO jobs ({columns}, body) VALUES ({marks})", (*values, msgspec.msgpack.encode(body))
        )
    old.close()

    store = opened(path)
    epoch = store.take_epoch()
    assert {lot.key.traits: list(lot.ready) for lot in store.load_queued_groups(10.0)} == {
        "[19]": [1, 2],
        "[null]": [3],
    }
    assert all(
        lot.key == group_key(one)
        for lot in store.load_queued_groups(10.0)
        for one in store.load_jobs(lot.ready)
    )
    again = [msgspec.structs.replace(one, state="queued", finished_at=None) for one in jobs[3:]]
    store.commit(epoch, WriteBatch(updates=again))
    assert {lot.key.traits for lot in store.load_queued_groups(10.0)} == {"[19]", "[null]", "[0]", "[2]"}
    store.close()


def test_only_its_owner_can_read_the_file(path: Path) -> None:
    store = opened(path)
    store.take_epoch()
    modes = {one.name: oct(one.stat().st_mode & 0o777) for one in path.parent.iterdir()}
    assert modes == dict.fromkeys((f"runner.db{end}" for end in ("", "-wal", "-shm", "-reserve")), "0o600")
    store.close()


def test_every_commit_is_synced(path: Path) -> None:
    store = opened(path)
    store.take_epoch()
    assert (
        store._connection.db.pragma("synchronous") == 2
        and store._connection.db.pragma("journal_mode") == "wal"
    )
    store.close()


def test_the_log_is_long_before_the_first_commit_and_does_not_grow(path: Path) -> None:
    store = opened(path)
    epoch = store.take_epoch()
    log = Path(f"{path}-wal")
    before = log.stat().st_size
    assert before > CHECKPOINT_PAGES * 4096
    for n in range(1, 1_001):
        store.commit(epoch, inserts(job(n)))
        store.checkpoint_if_due()
    assert log.stat().st_size == before
    assert path.stat().st_size < before, "the room made in the log must not come into the file"
    store.close()


def test_a_lock_of_another_program_is_told(path: Path, other: apsw.Connection) -> None:
    store = opened(path, busy_timeout_s=0.05)
    epoch = store.take_epoch()
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match=r"runner\.db.*locked"):
        store.commit(epoch, inserts(job(2)))
    other.execute("ROLLBACK")
    store.commit(epoch, inserts(job(2)))
    store.close()


def test_a_full_disk_is_told_and_heals(path: Path) -> None:
    store = opened(path)
    epoch = store.take_epoch()
    pages = store._connection.db.pragma("page_count")
    store._connection.db.pragma("max_page_count", pages + 2)
    big = inserts(job(1), body=b'"' + b"x" * 100_000 + b'"')
    with pytest.raises(StoreUnavailable, match="full"):
        store.commit(epoch, big)
    assert store.find_jobs(JobQuery()) == [] and store.last_job_number() == 0
    store._connection.db.pragma("max_page_count", 1_000_000)
    store.commit(epoch, big)
    store.close()


def test_a_failing_write_is_told_and_heals(path: Path) -> None:
    store = opened(path)
    epoch = store.take_epoch()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 1024 * 1024, limits[1]))
    big = inserts(job(1), body=b'"' + b"x" * 20_000_000 + b'"')
    try:
        with pytest.raises(StoreUnavailable, match="failed"):
            store.commit(epoch, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.find_jobs(JobQuery()) == []
    store.commit(epoch, big)
    assert len(store.load_payload(1, "input") or b"") == 20_000_002
    store.close()


def test_a_reading_connection_cannot_write(path: Path, other: apsw.Connection) -> None:
    store = SqliteStore(str(path), read_only=True)
    with pytest.raises(StoreUnavailable, match="read-only"):
        store.commit(1, inserts(job(2)))
    store.close()


def test_a_file_that_is_not_there_is_not_made_by_a_reader(path: Path) -> None:
    path.parent.mkdir()
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        SqliteStore(str(path), read_only=True).current_epoch()
    assert not path.exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="file"):
        opened(tmp_path / "file" / "runner.db").take_epoch()


@pytest.mark.parametrize("at", [0, 4096 * 20, 4096 * 120], ids=["header", "a page", "a later page"])
def test_a_damaged_file_is_refused_and_left_as_it_is(path: Path, at: int) -> None:
    filled(path)
    data = bytearray(path.read_bytes())
    data[at : at + 64] = os.urandom(64)
    path.write_bytes(data)
    store = opened(path)
    with pytest.raises(StoreCorrupt, match=r"runner\.db is damaged"):
        store.take_epoch()
    store.close()
    assert path.read_bytes() == bytes(data)


def test_the_check_ends_at_its_limit_however_large_the_file(path: Path) -> None:
    filled(path, jobs=4_000)
    data = bytearray(path.read_bytes())
    data[-4096 * 20 : -4096 * 19] = os.urandom(4096)
    path.write_bytes(data)
    store = opened(path, check_limit_s=0.0)
    assert store.take_epoch() == 2
    store.close()


def test_a_newer_file_is_refused(path: Path, other: apsw.Connection) -> None:
    other.execute("INSERT INTO migrations VALUES (99, 'from the future', 0)")
    with pytest.raises(RefusedStart, match="schema version 99 of a newer runner"):
        opened(path).take_epoch()


def test_another_programs_file_is_refused(path: Path) -> None:
    path.parent.mkdir()
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE photos (name)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(RefusedStart, match="another program"):
        opened(path).take_epoch()
    assert path.read_bytes() == before


def test_a_text_file_is_no_store(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("my notes, which are longer than a header of one hundred bytes " * 40)
    with pytest.raises(StoreCorrupt):
        opened(path).take_epoch()


PLANS = [
    (*select_numbers(JobQuery(states=["failed"])), "jobs_state"),
    (*select_numbers(JobQuery(states=["failed", "succeeded"])), "jobs_state"),
    (*select_numbers(JobQuery(ids=["a", "b"])), "jobs_id"),
    (*select_numbers(JobQuery(finished_before=1.0, order="asc")), "jobs_finished"),
    (*select_numbers(JobQuery(tags=["a"])), "USING PRIMARY KEY"),
    (statements.JOBS.format(numbers=statements.RUNNING_NUMBERS, order="ASC"), [], "jobs_running"),
    (
        statements.JOBS.format(numbers=statements.GIVEN_NUMBERS, order="ASC"),
        ["[1,2]"],
        "INTEGER PRIMARY KEY",
    ),
    ("SELECT queue, state, count(*) FROM jobs GROUP BY queue, state", [], "COVERING INDEX jobs_state"),
    (statements.QUEUED, [0.0], "COVERING INDEX jobs_queued"),
    (statements.QUEUED_WITH_TIMES, [0.0], "COVERING INDEX jobs_queued"),
]


@pytest.mark.parametrize(("sql", "values", "index"), PLANS, ids=[index for *_, index in PLANS])
def test_a_read_goes_by_its_index(other: apsw.Connection, sql: str, values: list[str], index: str) -> None:
    plan = [row[3] for row in other.execute("EXPLAIN QUERY PLAN " + sql, values)]
    assert any(index in step for step in plan), plan
    assert not any(step == "SCAN jobs" for step in plan), plan


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_that_lost_its_name_is_noticed_and_can_be_saved(path: Path, is_replaced: bool) -> None:
    filled(path, 1)
    store = opened(path)
    epoch = store.take_epoch()
    assert store.current_epoch() == epoch
    path.unlink()
    if is_replaced:
        path.touch()
    with pytest.raises(StoreGone, match="replaced" if is_replaced else "removed"):
        store.current_epoch()
    store.commit(epoch, inserts(job(2)))
    copy = path.with_name("copy")
    store.save_copy(str(copy))
    store.close()
    assert copy.stat().st_mode & 0o777 == 0o600
    again = opened(copy)
    assert again.take_epoch() == epoch + 1
    assert [one.number for one in again.find_jobs(JobQuery())] == [2, 1]
    again.close()


def test_a_start_without_room_for_its_log_can_be_repeated(path: Path) -> None:
    filled(path, 1)
    store = opened(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, limits[1]))
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="preparing it failed"):
                store.take_epoch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    epoch = store.take_epoch()
    store.commit(epoch, inserts(job(2)))
    assert [one.number for one in store.find_jobs(JobQuery())] == [2, 1]
    store.close()


def test_a_large_log_is_copied_only_when_due(path: Path) -> None:
    store = opened(path)
    epoch = store.take_epoch()
    store.commit(epoch, inserts(job(1)))
    assert not store.checkpoint_if_due()
    store.commit(epoch, WriteBatch(values=[("big", b"x" * CHECKPOINT_PAGES * 4096)]))
    assert store.checkpoint_if_due() and not store.checkpoint_if_due()
    store.close()
