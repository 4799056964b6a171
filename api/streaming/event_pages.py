"""Effect: pages of stored events: asked for and encoded once for all readers that come by side by side."""

from __future__ import annotations

import asyncio
from typing import Protocol

from api.coordinator.client import CoordinatorReply
from api.streaming import event_ring
from runner.protocol import front as front_protocol

#: Asked of the coordinator in one page.
PAGE_BYTES = 128 * 1024
#: Remembered by one front: readers of one job that start together stay about so close to each other.
PAGES_KEPT = 32


class RequestSender(Protocol):
    """The link, as far as pages need it."""

    def send_request(self, message: front_protocol.ReadEvents) -> asyncio.Future[CoordinatorReply]:
        """The coordinator's answer to come."""


class Leaf:
    """A page of a job's events, and what it is as server-sent events."""

    __slots__ = ("_encoded", "page")

    def __init__(self, page: front_protocol.EventPage) -> None:
        self.page = page
        self._encoded: dict[frozenset[str] | None, bytes] = {}

    def encoded(self, types: frozenset[str] | None) -> bytes:
        """Its events of these types (None: all)."""
        found = self._encoded.get(types)
        if found is None:
            found = self._encoded[types] = event_ring.encode_all(self.page.events, types)
        return found


class Pages:
    """Asks the coordinator for pages, and remembers those that others are about to ask for."""

    def __init__(self, link: RequestSender) -> None:
        self._link = link
        #: (job id, after) -> the page behind it, perhaps still under way; the oldest first.
        self._kept: dict[tuple[str, int], asyncio.Task[Leaf | front_protocol.Reply]] = {}

    async def fresh(
        self, job_id: str, after: int, *, max_bytes: int = PAGE_BYTES
    ) -> Leaf | front_protocol.Reply:
        """A page that tells of the job as it is now, or the coordinator's problem. It holds one event at
        least, where there are any.

        Raises:
            Unavailable
        """
        answer = await self._link.send_request(front_protocol.ReadEvents(0, job_id, after, max_bytes))
        return Leaf(answer) if isinstance(answer, front_protocol.EventPage) else answer

    async def next(self, job_id: str, after: int) -> Leaf | front_protocol.Reply:
        """The events behind `after`. Events never change: a page that another reader was given will do,
        though what it tells of the job may be old.

        Raises:
            Unavailable
        """
        key = job_id, after
        task = self._kept.get(key)
        if task is None:
            if len(self._kept) >= PAGES_KEPT:
                del self._kept[next(iter(self._kept))]
            task = self._kept[key] = asyncio.create_task(self.fresh(job_id, after))
            task.add_done_callback(lambda done: self._arrived(key, done))
        # A reader that leaves takes no page from the others.
        return await asyncio.shield(task)

    def forget(self, job_id: str) -> None:
        """Its last reader has left."""
        for key in [key for key in self._kept if key[0] == job_id]:
            del self._kept[key]

    def _arrived(self, key: tuple[str, int], task: asyncio.Task[Leaf | front_protocol.Reply]) -> None:
        """Keep only what stays true: events."""
        if not task.cancelled() and task.exception() is None:
            leaf = task.result()
            if isinstance(leaf, Leaf) and leaf.page.events:
                return
        if self._kept.get(key) is task:
            del self._kept[key]
