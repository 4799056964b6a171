"""A list never shows an older state of a job than an earlier list or GET did."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import pytest

from runner.coordinator.jobs.job_registry import LiveJob
from runner.errors import StoreUnavailable
from runner.jobs import cursor as cursors
from runner.jobs.job_query import JobQuery
from runner.stores.sqlite.access import MemoryAccess
from runner.stores.store import Store, WriteBatch
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, make_submission

T = TypeVar("T")


class StandingStore(MemoryAccess):
    """A store that refuses writes while it stands still; something may happen after its next read."""

    is_refusing = False
    then: Callable[[], Awaitable[None]] | None = None

    async def commit(self, epoch: int, batch: WriteBatch) -> None:
        if self.is_refusing:
            raise StoreUnavailable("the store stands still")
        await super().commit(epoch, batch)

    async def run_read(self, read: Callable[[Store], T]) -> T:
        found = await super().run_read(read)
        then, self.then = self.then, None
        if then is not None:
            await then()
        return found


def play(body: Callable[[LifecycleHarness, StandingStore], Awaitable[None]]) -> None:
    async def main() -> None:
        access = StandingStore()
        harness = LifecycleHarness(access, await access.take_epoch())
        async with asyncio.timeout(20):
            await body(harness, access)
        harness.timers.close()

    asyncio.run(main())


async def listed(harness: LifecycleHarness, **query: Any) -> list[tuple[str, int]]:
    body = await harness.job_reader.list_json(
        JobQuery(**query), harness.lifecycle.registry, harness.queue_manager
    )
    return [(job["state"], job["attempt"]) for job in msgspec.json.decode(body)["data"]]


async def submitted(harness: LifecycleHarness) -> LiveJob:
    live = harness.lifecycle.submit(make_submission())
    await harness.journal.flush()
    return live


def test_a_list_does_not_go_back_while_the_store_refuses_writes() -> None:
    async def body(harness: LifecycleHarness, access: StandingStore) -> None:
        live = await submitted(harness)
        access.is_refusing = True
        harness.start(live)
        with pytest.raises(StoreUnavailable):
            await harness.journal.flush()
        # The start is not stored, so no client is shown it yet.
        assert await listed(harness) == [("queued", 0)]
        harness.end(live, output=b"1")
        # As GET of the job does.
        with pytest.raises(StoreUnavailable):
            await listed(harness)
        access.is_refusing = False
        done = asyncio.get_running_loop().create_future()
        harness.journal.call_when_durable(lambda failure: done.set_result(failure), is_patient=True)
        await done
        assert await listed(harness) == [("succeeded", 1)]

    play(body)


def test_a_job_that_ends_while_a_list_is_read_is_shown_as_ended() -> None:
    async def body(harness: LifecycleHarness, access: StandingStore) -> None:
        live = await submitted(harness)

        async def it_runs_and_ends() -> None:
            harness.start(live)
            harness.end(live, output=b"1")

        access.then = it_runs_and_ends
        assert await listed(harness) == [("succeeded", 1)]

    play(body)


def test_a_job_whose_end_was_committed_while_a_list_is_read_is_shown_as_ended() -> None:
    async def body(harness: LifecycleHarness, access: StandingStore) -> None:
        live = await submitted(harness)

        async def it_runs_and_ends() -> None:
            harness.start(live)
            harness.end(live, output=b"1")
            await harness.journal.flush()

        access.then = it_runs_and_ends
        assert await listed(harness) == [("succeeded", 1)]
        assert await listed(harness, states=["queued"]) == []

    play(body)


def test_a_short_page_of_a_search_continues_where_it_stopped() -> None:
    async def body(harness: LifecycleHarness, access: StandingStore) -> None:
        for number in range(1, 6):
            harness.lifecycle.submit(make_submission(number))
        await harness.journal.flush()
        seen: list[str] = []
        query = JobQuery(inputs=[("a", b"1")], limit=2)
        access.search_rows_max = 2
        pages = 0
        for _ in range(9):
            pages += 1
            page = msgspec.json.decode(
                await harness.job_reader.list_json(query, harness.lifecycle.registry, harness.queue_manager)
            )
            seen += [job["id"] for job in page["data"]]
            if page["next_cursor"] is None:
                break
            query.cursor = cursors.decode(page["next_cursor"])
        assert (pages, seen) == (3, [])

    play(body)
