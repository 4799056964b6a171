from __future__ import annotations

import asyncio
import os
import resource
import select
import signal
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from runner.coordinator.storage.open_store import open_store
from runner.errors import Fenced, StoreCorrupt, StoreUnavailable, Unavailable
from runner.jobs.job_query import JobQuery
from runner.processes.pulse import SILENT_PINGS_MAX, Activity
from runner.stores.sqlite.access import SEARCHES_MAX, SqliteAccess, StoreAccess
from runner.stores.store import SearchPage, Store, WriteBatch
from tests.runner.stores.store_data import chunk, events, inserts, job

URLS = ["memory:", None]


def with_store(url: str | None, folder: Path, use: Callable[[StoreAccess], Awaitable[None]]) -> None:
    asyncio.run(_with_store(url, folder, use))


async def _with_store(url: str | None, folder: Path, use: Callable[[StoreAccess], Awaitable[None]]) -> None:
    access = await open_store(url, folder)
    try:
        async with asyncio.timeout(30):
            await use(access)
    finally:
        await access.close()


@pytest.mark.parametrize("url", URLS)
def test_what_is_committed_is_read(tmp_path: Path, url: str | None) -> None:
    async def use(access: StoreAccess) -> None:
        epoch = await access.take_epoch()
        batch = inserts(job(1, state="succeeded", attempt=1))
        batch.events.append(chunk(1, 1, 3))
        await access.commit(epoch, batch)
        await access.commit(epoch, WriteBatch(updates=[job(1)]))
        assert await access.run_read(lambda store: store.find_jobs(JobQuery())) == [batch.inserts[0][0]]
        assert await access.run_read(lambda store: store.load_events(1, 0, 1000)) == events(1, 3)
        assert access.stale_updates == 1 and not access.writer_died.is_set()

    with_store(url, tmp_path, use)


@pytest.mark.timed
def test_a_job_is_read_beside_searches_of_many_inputs(tmp_path: Path) -> None:
    """Thirty lists over 60 MB of inputs; nobody but a search waits for them."""

    async def use(access: StoreAccess) -> None:
        epoch = await access.take_epoch()
        text = b'{"other":"%s"}' % (b"x" * 1_000_000)
        await access.commit(epoch, WriteBatch(inserts=[(job(n), text) for n in range(1, 61)]))
        query = JobQuery(inputs=[("model", b'"tiny"')])
        searches = [asyncio.ensure_future(access.search_jobs(query)) for _ in range(30)]
        await asyncio.sleep(0)
        began_mono = time.monotonic()
        assert await access.run_read(lambda store: store.load_jobs([1])) == [job(1)]
        took_s = time.monotonic() - began_mono
        answers = await asyncio.gather(*searches, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, Unavailable)]
        assert len(refused) == 30 - SEARCHES_MAX
        assert [answer.jobs for answer in answers if isinstance(answer, SearchPage)] == [[]] * SEARCHES_MAX
        assert took_s < 0.25

    with_store(None, tmp_path, use)


def test_what_jobs_need_waits_for_no_long_search(tmp_path: Path) -> None:
    async def use(access: StoreAccess) -> None:
        await access.commit(await access.take_epoch(), inserts(job(1)))
        found = threading.Event()
        search = asyncio.create_task(access.run_read(lambda store: found.wait(20)))
        assert await access.run_urgent_read(lambda store: store.load_jobs([1])) == [job(1)]
        assert not search.done()
        found.set()
        assert await search

    with_store(None, tmp_path, use)


@pytest.mark.parametrize("url", URLS)
def test_an_old_epoch_is_fenced(tmp_path: Path, url: str | None) -> None:
    async def use(access: StoreAccess) -> None:
        old = await access.take_epoch()
        await access.take_epoch()
        with pytest.raises(Fenced):
            await access.commit(old, inserts(job(1)))
        assert await access.run_read(lambda store: store.last_job_number()) == 0

    with_store(url, tmp_path, use)


def test_a_second_server_on_one_file_fences_the_first(tmp_path: Path) -> None:
    async def use(access: StoreAccess) -> None:
        old = await access.take_epoch()

        async def second(other: StoreAccess) -> None:
            assert await other.take_epoch() == old + 1

        await _with_store(None, tmp_path, second)
        assert await access.run_read(lambda store: store.current_epoch()) == old + 1
        with pytest.raises(Fenced):
            await access.commit(old, inserts(job(1)))

    with_store(None, tmp_path, use)


def test_commits_under_way_keep_their_order(tmp_path: Path) -> None:
    async def use(access: StoreAccess) -> None:
        epoch = await access.take_epoch()
        batches = [WriteBatch(values=[("last", str(number).encode())]) for number in range(50)]
        await asyncio.gather(*(access.commit(epoch, batch) for batch in batches))
        assert await access.run_read(lambda store: store.load_values("last")) == {"last": b"49"}

    with_store(None, tmp_path, use)


def test_one_who_stops_waiting_does_not_take_anothers_answer(tmp_path: Path) -> None:
    async def use(access: StoreAccess) -> None:
        epoch = await access.take_epoch()
        waiting = asyncio.ensure_future(access.commit(epoch, inserts(job(1))))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(Fenced):
            await access.commit(epoch + 1, inserts(job(2)))
        await access.commit(epoch, inserts(job(3)))
        assert await access.run_read(lambda store: store.last_job_number()) == 3

    with_store(None, tmp_path, use)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_batch_of_64_mib_is_stored(
    tmp_path: Path, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def use(access: StoreAccess) -> None:
        epoch = await access.take_epoch()
        text = b'"' + b"x" * (1 << 20) + b'"'
        await access.commit(epoch, inserts(*(job(n) for n in range(1, 65)), body=text))
        assert await access.run_read(lambda store: store.load_payload(64, "input")) == text

    run(_with_store(None, tmp_path, use))


def test_the_end_of_the_writer_is_told_to_all_who_wait(tmp_path: Path) -> None:
    async def use(access: StoreAccess) -> None:
        assert isinstance(access, SqliteAccess) and access._child is not None
        epoch = await access.take_epoch()
        access._child.signal(signal.SIGSTOP)
        waiting = [asyncio.ensure_future(access.commit(epoch, inserts(job(n)))) for n in (1, 2)]
        await asyncio.sleep(0)
        access._child.signal(signal.SIGKILL)
        await access.writer_died.wait()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [StoreUnavailable] * 2

    with_store(None, tmp_path, use)


def test_a_writer_that_died_is_replaced_by_the_next_commit(tmp_path: Path) -> None:
    async def use(access: StoreAccess) -> None:
        assert isinstance(access, SqliteAccess) and access._child is not None
        epoch = await access.take_epoch()
        await access.commit(epoch, inserts(job(1)))
        access._child.signal(signal.SIGKILL)
        await access.writer_died.wait()
        await access.commit(epoch, inserts(job(2)))
        assert not access.writer_died.is_set()
        assert await access.run_read(lambda store: store.last_job_number()) == 2

    with_store(None, tmp_path, use)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until it is so; the test as a whole has a deadline."""
    while not is_so():
        await asyncio.sleep(0.01)


def test_a_writer_that_hangs_is_killed_and_replaced(tmp_path: Path) -> None:
    async def use(access: StoreAccess) -> None:
        assert isinstance(access, SqliteAccess) and access._child is not None
        epoch, hung = await access.take_epoch(), access._child
        await until(hung.has_beaten)
        access._has_beaten = True
        hung.signal(signal.SIGSTOP)
        await until(lambda: (hung.read_activity() or Activity(0, "")).state == "T")
        waiting = asyncio.ensure_future(access.commit(epoch, inserts(job(1))))
        for _ in range(SILENT_PINGS_MAX):
            await asyncio.sleep(0)
            access.check_writer()
        assert not access.is_writer_answering and not waiting.done()
        access.check_writer()
        with pytest.raises(StoreUnavailable):
            await waiting
        await committed(access, epoch, inserts(job(1)))
        assert access.is_writer_answering and access._child.pid != hung.pid

    with_store(None, tmp_path, use)


def test_a_writer_that_waits_for_long_in_a_commit_is_left_alone(tmp_path: Path) -> None:
    """Its disk is slow, or another program has locked the file: its beats come all the while."""

    async def use(access: StoreAccess) -> None:
        assert isinstance(access, SqliteAccess) and access._child is not None
        epoch, slow = await access.take_epoch(), access._child
        with closing(sqlite3.connect(tmp_path / "runner.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.ensure_future(access.commit(epoch, inserts(job(1))))
            for _ in range(3):
                await until(lambda: bool(select.select([slow.lifeline], [], [], 0)[0]))
                for _ in range(SILENT_PINGS_MAX - 1):
                    access.check_writer()
            assert access._has_beaten and not waiting.done()
            other.execute("ROLLBACK")
        await waiting
        assert access._child is slow

    with_store(None, tmp_path, use)


def test_a_dead_writer_that_nobody_needs_is_replaced_too(tmp_path: Path) -> None:
    async def use(access: StoreAccess) -> None:
        assert isinstance(access, SqliteAccess) and access._child is not None
        epoch, dead = await access.take_epoch(), access._child
        dead.signal(signal.SIGKILL)
        await access.writer_died.wait()
        assert not access.is_writer_answering
        access.check_writer()
        await until(lambda: access.is_writer_answering)
        assert access._child is not dead
        await access.commit(epoch, inserts(job(1)))

    with_store(None, tmp_path, use)


def test_a_batch_is_stored_as_it_was_when_its_commit_began(tmp_path: Path) -> None:
    """Its jobs go on while a dead writer is replaced, and their outputs come with the next batch."""

    async def use(access: StoreAccess) -> None:
        assert isinstance(access, SqliteAccess) and access._child is not None
        epoch = await access.take_epoch()
        access._child.signal(signal.SIGKILL)
        await access.writer_died.wait()
        live = job(1, state="running", attempt=1)
        commit = asyncio.ensure_future(access.commit(epoch, inserts(live)))
        await asyncio.sleep(0)
        assert access.writer_died.is_set(), "the writer is still to be replaced"
        live.state = "succeeded"
        await commit
        assert [stored.state for stored in await access.run_read(lambda store: store.load_jobs([1]))] == [
            "running"
        ]

    with_store(None, tmp_path, use)


def test_commits_keep_their_order_while_a_writer_is_replaced(tmp_path: Path) -> None:
    async def use(access: StoreAccess) -> None:
        assert isinstance(access, SqliteAccess) and access._child is not None
        epoch = await access.take_epoch()
        access._child.signal(signal.SIGKILL)
        await access.writer_died.wait()
        batches = [WriteBatch(values=[("last", str(number).encode())]) for number in range(9)]
        await asyncio.gather(*(access.commit(epoch, batch) for batch in batches))
        assert await access.run_read(lambda store: store.load_values("last")) == {"last": b"8"}

    with_store(None, tmp_path, use)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing more, so that no process can be started."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def committed(access: StoreAccess, epoch: int, batch: WriteBatch) -> None:
    """Commit the batch as the journal does: once more after each refusal."""
    while True:
        try:
            return await access.commit(epoch, batch)
        except StoreUnavailable:
            await asyncio.sleep(0.01)


def test_a_writer_that_could_not_be_started_is_started_later(tmp_path: Path) -> None:
    async def use(access: StoreAccess) -> None:
        assert isinstance(access, SqliteAccess) and access._child is not None
        epoch = await access.take_epoch()
        access._child.signal(signal.SIGKILL)
        await access.writer_died.wait()
        with no_descriptors():
            with pytest.raises(StoreUnavailable, match=r"cannot be started: .*Too many open files"):
                await access.commit(epoch, inserts(job(1)))
            # Not tried with every commit: a start takes long, and who waits for one holds up the others.
            with pytest.raises(StoreUnavailable, match="will be restarted soon"):
                await access.commit(epoch, inserts(job(1)))
            assert access.writer_died.is_set()
        await committed(access, epoch, inserts(job(1)))
        assert not access.writer_died.is_set()
        assert await access.run_read(lambda store: store.last_job_number()) == 1

    with_store(None, tmp_path, use)


def test_an_access_without_a_writer_is_closed_at_once(tmp_path: Path) -> None:
    async def use() -> None:
        access = await open_store(None, tmp_path)
        assert isinstance(access, SqliteAccess) and access._child is not None
        epoch = await access.take_epoch()
        access._child.signal(signal.SIGKILL)
        await access.writer_died.wait()
        with no_descriptors(), pytest.raises(StoreUnavailable):
            await access.commit(epoch, inserts(job(1)))
        async with asyncio.timeout(2):
            await access.close()
            await access.close()
        with pytest.raises(StoreUnavailable, match="is not open"):
            await access.commit(epoch, inserts(job(1)))

    asyncio.run(use())


def test_a_close_waits_for_the_writer_that_is_being_started(tmp_path: Path) -> None:
    async def use() -> None:
        access = await open_store(None, tmp_path)
        assert isinstance(access, SqliteAccess) and access._child is not None
        epoch = await access.take_epoch()
        access._child.signal(signal.SIGKILL)
        await access.writer_died.wait()
        commit = asyncio.ensure_future(access.commit(epoch, inserts(job(1))))
        await asyncio.sleep(0)
        async with asyncio.timeout(8):
            await access.close()
        # It went out before the close, so that the new writer stored it or told of its own end.
        assert isinstance((await asyncio.gather(commit, return_exceptions=True))[0], StoreUnavailable | None)

    asyncio.run(use())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_writer_ignores_the_terminals_signals(tmp_path: Path, number: signal.Signals) -> None:
    async def use(access: StoreAccess) -> None:
        assert isinstance(access, SqliteAccess) and access._child is not None
        epoch = await access.take_epoch()
        access._child.signal(number)
        await access.commit(epoch, inserts(job(1)))

    with_store(None, tmp_path, use)


def test_the_writer_ends_when_its_lifeline_does(tmp_path: Path) -> None:
    async def use(access: StoreAccess) -> None:
        assert isinstance(access, SqliteAccess) and access._child is not None
        await access.take_epoch()
        access._child.lifeline.close()
        await access.writer_died.wait()

    with_store(None, tmp_path, use)


def test_closing_leaves_one_whole_file(tmp_path: Path) -> None:
    async def use(access: StoreAccess) -> None:
        await access.commit(await access.take_epoch(), inserts(job(1)))
        await access.run_read(lambda store: store.last_job_number())

    with_store(None, tmp_path, use)
    assert os.listdir(tmp_path) == ["runner.db"]


def test_a_damaged_file_is_told_from_the_writer(tmp_path: Path) -> None:
    (tmp_path / "runner.db").write_bytes(b"no store at all " * 1000)

    async def use(access: StoreAccess) -> None:
        with pytest.raises(StoreCorrupt, match=r"runner\.db is damaged"):
            await access.take_epoch()

    with_store(None, tmp_path, use)


def test_an_error_of_a_running_server_hides_the_folder(tmp_path: Path) -> None:
    """Clients read it; a start that fails names the whole path, for the operator."""

    def fail(store: Store) -> None:
        raise StoreUnavailable(f"{tmp_path / 'runner.db'}: reading failed: the disk is broken")

    async def use(access: StoreAccess) -> None:
        await access.take_epoch()
        for run in (access.run_read, access.run_urgent_read):
            with pytest.raises(StoreUnavailable, match=r"^runner\.db: reading failed: the disk is broken$"):
                await run(fail)
        with pytest.raises(Fenced) as fenced:
            await access.commit(0, inserts(job(1)))
        assert str(tmp_path) not in str(fenced.value) + fenced.value.message
        assert str(tmp_path) not in access.describe() and str(tmp_path) in access.describe_place()

    with_store(None, tmp_path, use)
