"""Pages of stored events: who shares them, and what is not remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from api.coordinator.client import CoordinatorReply
from api.streaming.event_pages import CACHED_MAX_BYTES, PAGES_CACHED_MAX, CachedPage, EventPages
from runner.errors import Unavailable
from runner.protocol import front as front_protocol

EVENTS = [(1, "log", b"{}"), (2, "done", b"{}")]
FULL = front_protocol.EventPage(0, b"{}", EVENTS, 1, 2, True)
EMPTY = front_protocol.EventPage(0, b"{}", [], 1, 0, False)


class Coordinator:
    """Remembers what it was asked; a test gives the answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[front_protocol.ReadEvents, asyncio.Future[CoordinatorReply]]] = []

    def send_request(self, message: front_protocol.ReadEvents) -> asyncio.Future[CoordinatorReply]:
        future: asyncio.Future[CoordinatorReply] = asyncio.get_running_loop().create_future()
        self.asked.append((message, future))
        return future

    async def answer(self, answer: CoordinatorReply | Exception) -> None:
        """Answer what was asked last, as soon as it is asked."""
        while not self.asked or self.asked[-1][1].done():
            await asyncio.sleep(0)
        future = self.asked[-1][1]
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def run(body: Callable[[EventPages, Coordinator], Awaitable[None]]) -> Coordinator:
    coordinator = Coordinator()

    async def main() -> None:
        await asyncio.wait_for(body(EventPages(coordinator), coordinator), 5)

    asyncio.run(main())
    return coordinator


def test_a_page_is_asked_for_and_encoded_once() -> None:
    async def body(pages: EventPages, coordinator: Coordinator) -> None:
        both = asyncio.gather(pages.fetch_cached("a", 0), pages.fetch_cached("a", 0))
        await coordinator.answer(FULL)
        first, second = await both
        third = await pages.fetch_cached("a", 0)
        assert isinstance(first, CachedPage) and first is second is third
        assert first.encode_sse(None) is first.encode_sse(None)
        assert first.encode_sse(frozenset({"done"})) == b"id: 2\nevent: done\ndata: {}\n\n"

    assert len(run(body).asked) == 1


def test_a_fresh_page_is_asked_for_each_time() -> None:
    async def body(pages: EventPages, coordinator: Coordinator) -> None:
        for _ in range(2):
            fresh = asyncio.ensure_future(pages.fetch("a", 0, max_bytes=1))
            await coordinator.answer(FULL)
            await fresh

    assert [question.max_bytes for question, _ in run(body).asked] == [1, 1]


def test_a_reader_that_leaves_takes_no_page_from_the_others() -> None:
    async def body(pages: EventPages, coordinator: Coordinator) -> None:
        one, other = (
            asyncio.ensure_future(pages.fetch_cached("a", 0)),
            asyncio.ensure_future(pages.fetch_cached("a", 0)),
        )
        while not coordinator.asked:
            await asyncio.sleep(0)
        one.cancel()
        await coordinator.answer(FULL)
        assert isinstance(await other, CachedPage) and one.cancelled()

    assert len(run(body).asked) == 1


@pytest.mark.parametrize("answer", [EMPTY, front_protocol.Reply(0, 404), Unavailable("gone")])
def test_what_may_change_is_not_remembered(answer: CoordinatorReply | Exception) -> None:
    async def body(pages: EventPages, coordinator: Coordinator) -> None:
        for _ in range(2):
            asked = asyncio.ensure_future(pages.fetch_cached("a", 0))
            await coordinator.answer(answer)
            (told,) = await asyncio.gather(asked, return_exceptions=True)
            assert told is answer or (isinstance(told, CachedPage) and told.page is answer)

    assert len(run(body).asked) == 2


def test_only_the_newest_pages_of_jobs_that_are_read_are_remembered() -> None:
    async def ask(pages: EventPages, coordinator: Coordinator, job_id: str, after: int) -> None:
        asked = asyncio.ensure_future(pages.fetch_cached(job_id, after))
        await coordinator.answer(FULL)
        await asked

    async def body(pages: EventPages, coordinator: Coordinator) -> None:
        await ask(pages, coordinator, "b", 0)
        for after in range(PAGES_CACHED_MAX):
            await ask(pages, coordinator, "a", after)
        # The first made room for the last; the others are there until nobody reads that job.
        await pages.fetch_cached("a", 0)
        assert len(coordinator.asked) == PAGES_CACHED_MAX + 1
        await ask(pages, coordinator, "b", 0)
        pages.drop_job("a")
        await ask(pages, coordinator, "a", PAGES_CACHED_MAX - 1)
        await pages.fetch_cached("b", 0)

    assert len(run(body).asked) == PAGES_CACHED_MAX + 3


def test_of_large_pages_only_the_newest_are_remembered() -> None:
    large = [(1, "output", bytes(CACHED_MAX_BYTES // 2 + 1))]

    async def body(pages: EventPages, coordinator: Coordinator) -> None:
        for after, page in ((0, FULL), (2, msgspec.structs.replace(FULL, events=large)), (3, FULL)):
            asked = asyncio.ensure_future(pages.fetch_cached("a", after))
            await coordinator.answer(page)
            await asked
        # Room for the large page and the small ones, but not for a second large one.
        for after in (0, 2, 3):
            await pages.fetch_cached("a", after)
        assert len(coordinator.asked) == 3
        asked = asyncio.ensure_future(pages.fetch_cached("a", 4))
        await coordinator.answer(msgspec.structs.replace(FULL, events=large))
        await asked
        for after in (3, 4):
            await pages.fetch_cached("a", after)
        assert len(coordinator.asked) == 4
        for after in (0, 2):
            asked = asyncio.ensure_future(pages.fetch_cached("a", after))
            await coordinator.answer(FULL)
            await asked

    assert len(run(body).asked) == 6


def test_selections_that_differ_in_absent_types_share_the_bytes() -> None:
    page = CachedPage(FULL)
    assert page.encode_sse(frozenset({"log", "done", "output"})) is page.encode_sse(None)
    assert page.encode_sse(frozenset({"done", "output"})) is page.encode_sse(frozenset({"done"}))
