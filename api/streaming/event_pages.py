"""Effect: pages of stored events, requested and encoded once for all concurrent readers."""

from __future__ import annotations

import asyncio
from typing import Protocol

from api.coordinator.client import CoordinatorReply
from api.streaming import event_ring
from runner.protocol import front as front_protocol

#: Size of one page requested from the coordinator.
PAGE_BYTES = 128 * 1024
#: Pages cached by one front: readers of a job that start together stay about this close to each other.
PAGES_CACHED_MAX = 32
#: Bytes of the events in cached pages, beyond which only the newest page is kept.
CACHED_MAX_BYTES = 8 * 1024 * 1024


class RequestSender(Protocol):
    """The part of the coordinator's client that pages use."""

    def send_request(self, message: front_protocol.ReadEvents) -> asyncio.Future[CoordinatorReply]:
        """Return a future of the coordinator's reply."""


class CachedPage:
    """A page of a job's events with its encodings as server-sent events."""

    __slots__ = ("_encoded_by_types", "_types", "nbytes", "page")

    def __init__(self, page: front_protocol.EventPage) -> None:
        self.page = page
        self.nbytes = sum(len(data) for _, _, data in page.events)
        self._types = frozenset(kind for _, kind, _ in page.events)
        self._encoded_by_types: dict[frozenset[str] | None, bytes] = {}

    def encode_sse(self, types: frozenset[str] | None) -> bytes:
        """Return the page's events of these types (None: all) as server-sent events.

        Encoded once per selection, of which only the types in this page count.
        """
        if types is not None:
            types = None if types >= self._types else types & self._types
        encoded = self._encoded_by_types.get(types)
        if encoded is None:
            encoded = self._encoded_by_types[types] = event_ring.encode_events(self.page.events, types)
        return encoded


class EventPages:
    """Requests pages from the coordinator and caches those that other readers will need soon."""

    def __init__(self, coordinator: RequestSender) -> None:
        self._coordinator = coordinator
        #: (job id, after) -> the page of later events, possibly still pending; oldest first.
        self._tasks: dict[tuple[str, int], asyncio.Task[CachedPage | front_protocol.Reply]] = {}
        #: Bytes of the pages that have arrived, oldest first.
        self._bytes_by_key: dict[tuple[str, int], int] = {}

    async def fetch(
        self, job_id: str, after: int, *, max_bytes: int = PAGE_BYTES
    ) -> CachedPage | front_protocol.Reply:
        """Return a page with the job's current document, or the coordinator's problem.

        The page has at least one event if there are any after `after`, except with `max_bytes` 0: then it
        has none.

        Raises:
            Unavailable: the coordinator is gone, overloaded, or did not reply in time.
        """
        answer = await self._coordinator.send_request(front_protocol.ReadEvents(0, job_id, after, max_bytes))
        return CachedPage(answer) if isinstance(answer, front_protocol.EventPage) else answer

    async def fetch_cached(self, job_id: str, after: int) -> CachedPage | front_protocol.Reply:
        """Return the page of events after `after`, possibly one that another reader fetched.

        Events never change, so a page can be reused, but its job document may be outdated.

        Raises:
            Unavailable: as `fetch`.
        """
        key = job_id, after
        task = self._tasks.get(key)
        if task is None:
            if len(self._tasks) >= PAGES_CACHED_MAX:
                self._drop(next(iter(self._tasks)))
            task = self._tasks[key] = asyncio.create_task(self.fetch(job_id, after))
            task.add_done_callback(lambda done: self._on_fetched(key, done))
        # A reader that leaves must not cancel the request that others await.
        return await asyncio.shield(task)

    def drop_job(self, job_id: str) -> None:
        """Drop a job's pages, after its last reader has left."""
        for key in [key for key in self._tasks if key[0] == job_id]:
            self._drop(key)

    def _bound_cache(self, newest: tuple[str, int], nbytes: int) -> None:
        """Account a page that was fetched, and drop the oldest ones beyond `CACHED_MAX_BYTES`."""
        self._bytes_by_key[newest] = nbytes
        for key in list(self._bytes_by_key):
            if sum(self._bytes_by_key.values()) <= CACHED_MAX_BYTES or key == newest:
                return
            self._drop(key)

    def _drop(self, key: tuple[str, int]) -> None:
        self._tasks.pop(key, None)
        self._bytes_by_key.pop(key, None)

    def _on_fetched(
        self, key: tuple[str, int], task: asyncio.Task[CachedPage | front_protocol.Reply]
    ) -> None:
        """Keep a fetched page only if it stays valid, that is, has events."""
        if not task.cancelled() and task.exception() is None:
            cached = task.result()
            if isinstance(cached, CachedPage) and cached.page.events:
                if self._tasks.get(key) is task:
                    self._bound_cache(key, cached.nbytes)
                return
        if self._tasks.get(key) is task:
            self._drop(key)
