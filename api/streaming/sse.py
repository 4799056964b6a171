"""Effect: server-sent events of jobs: one watch upstream and one ring for all readers of a job."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator

import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.coordinator.client import CoordinatorClient
from api.streaming import event_ring
from api.streaming.event_pages import CachedPage, EventPages
from runner.errors import RunnerError
from runner.protocol import front as front_protocol

logger = logging.getLogger(__name__)

#: Readers are woken at most so often: a wake-up costs about 8 us a reader.
WAKE_EVERY_S = 0.002


class Channel:
    """What the front knows of one watched job, shared by its readers."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.ring = event_ring.Ring()
        self.readers = 0
        #: The last durable event that was heard of, and whether the job ended with it.
        self.last = 0
        self.ended = False
        self.closed = False
        #: Set by a feed, taken back by the check for silence.
        self.fed = False
        self.check: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._waiters: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._woken_at = 0.0

    def learn(self, last: int, ended: bool) -> None:
        """Take in what a feed or a page said."""
        if last < self.last:
            return
        # A page may be older than the feed that overtook it: only a later event makes an end undone.
        ended = ended or (last == self.last and self.ended)
        news = last > self.last or ended != self.ended
        self.last, self.ended = last, ended
        if news:
            self._wake_soon()

    def close(self) -> None:
        """End all readers."""
        self.closed = True
        self._wake()

    async def wait(self) -> None:
        """Until there may be something new."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def _wake_soon(self) -> None:
        if self._timer is not None:
            return
        due_s = self._woken_at + WAKE_EVERY_S - self._loop.time()
        if due_s <= 0:
            self._wake()
        else:
            self._timer = self._loop.call_later(due_s, self._wake)

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._woken_at = self._loop.time()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Hub:
    """All channels of this front."""

    def __init__(self, link: CoordinatorClient, ping_s: float) -> None:
        self.pages = EventPages(link)
        self._link = link
        self._ping_s = ping_s
        self._loop = asyncio.get_running_loop()
        self._channels: dict[str, Channel] = {}
        self._closed = False

    def join(self, job_id: str) -> Channel:
        """The job's channel, watched from now on; give it back by `leave`."""
        channel = self._channels.get(job_id)
        if channel is None:
            channel = self._channels[job_id] = Channel(job_id)
            channel.closed = self._closed
            channel.check = self._loop.call_later(self._ping_s, self._check, channel)
            self._link.send(front_protocol.SubscribeEvents(job_id))
        channel.readers += 1
        return channel

    def leave(self, channel: Channel) -> None:
        """A reader goes; with the last one the watch ends."""
        channel.readers -= 1
        if channel.readers == 0:
            del self._channels[channel.job_id]
            if channel.check is not None:
                channel.check.cancel()
            self.pages.drop_job(channel.job_id)
            self._link.send(front_protocol.UnsubscribeEvents(channel.job_id))

    def feed(self, feed: front_protocol.JobEvents) -> None:
        """New durable events from the coordinator."""
        channel = self._channels.get(feed.job_id)
        # None: the last reader has left; the coordinator did not know yet.
        if channel is None or not feed.events:
            return
        channel.fed = True
        channel.ring.add(feed.events)
        channel.learn(feed.events[-1][0], feed.is_job_ended)

    def close(self) -> None:
        """End all streams; those who come later are ended at once too."""
        self._closed = True
        for channel in self._channels.values():
            channel.close()

    def _check(self, channel: Channel) -> None:
        """After a silence ask how far the job is: a feed may have been left out (the front's credit was
        used up), and if it was the last one nothing else would tell."""
        channel.check = self._loop.call_later(self._ping_s, self._check, channel)
        silent, channel.fed = not channel.fed, False
        if not silent:
            return
        try:
            asked = self._link.send_request(front_protocol.ReadEvents(0, channel.job_id, channel.last, 1))
        except RunnerError:
            return
        asked.add_done_callback(lambda answered: self._checked(channel, answered))

    def _checked(
        self, channel: Channel, answered: asyncio.Future[front_protocol.Reply | front_protocol.EventPage]
    ) -> None:
        if answered.cancelled() or answered.exception() is not None:
            return
        page = answered.result()
        if isinstance(page, front_protocol.EventPage):
            channel.learn(page.last_seq, page.is_job_ended)
        elif page.status == 404:
            # Deleted under its readers: there is nothing left to wait for.
            channel.close()


class Reader:
    """One client's way through a job's events: a cursor, first over pages, then over the ring."""

    def __init__(
        self, hub: Hub, channel: Channel, leaf: CachedPage, after: int, types: frozenset[str] | None
    ) -> None:
        self._hub = hub
        self._channel = channel
        self._leaf: CachedPage | None = leaf
        self._cursor = after
        self._types = types
        #: Whether the client's own cursor stands behind `_cursor` because of `types`.
        self._hidden = False

    async def stream(self) -> AsyncIterator[bytes]:
        """All chunks, in order, until the job's last event or the end of the server."""
        assert self._leaf is not None
        head = event_ring.RETRY + event_ring.bare("snapshot", self._leaf.page.job)
        while True:
            leaf = self._leaf
            if leaf is not None:
                before = self._cursor
                chunk = head + self._through(leaf)
                if not chunk and self._cursor == before < self._channel.last:
                    # The store tells of less than the feed did: nothing sane is left to send.
                    return
                head, self._leaf = b"", None
                if chunk:
                    yield chunk
            elif self._channel.closed:
                # Spread over time, or all of them come back in the same moment.
                yield b"retry: %d\n\n" % random.randint(1000, 4000)
                return
            elif self._cursor >= self._channel.last:
                if self._channel.ended:
                    if self._hidden:
                        yield event_ring.cursor_only(self._cursor)
                    return
                await self._channel.wait()
            elif self._channel.ring.holds(self._cursor + 1):
                before = self._cursor
                chunk, self._cursor = self._channel.ring.take(before, self._types)
                self._hidden = self._types is not None
                if chunk:
                    yield chunk
            elif not await self._turn_page():
                return

    async def _turn_page(self) -> bool:
        """Fetch the next page of what the ring does not hold; False where there is none any more."""
        try:
            answer = await self._hub.pages.fetch_cached(self._channel.job_id, self._cursor)
        except RunnerError as error:
            logger.info("a stream of job %s ends: %s", self._channel.job_id, error.message)
            return False
        if isinstance(answer, CachedPage):
            self._leaf = answer
            return True
        return False

    def _through(self, leaf: CachedPage) -> bytes:
        """Move the cursor over a page; its bytes, with a `gap` before them for what is gone."""
        page = leaf.page
        self._channel.learn(page.last_seq, page.is_job_ended)
        reached = page.events[-1][0] if page.events else self._cursor
        first = page.events[0][0] if page.events else page.first_seq
        gap = b""
        if first > self._cursor + 1:
            gap = self._gap(first - 1)
            reached = max(reached, first - 1)
        elif not page.events and page.last_seq > self._cursor:
            # Taken by retention between the two looks.
            gap = self._gap(page.last_seq)
            reached = page.last_seq
        self._cursor = max(self._cursor, reached)
        self._hidden = self._types is not None
        return gap + leaf.encode_sse(self._types)

    def _gap(self, to: int) -> bytes:
        lost = {"job_id": self._channel.job_id, "from": self._cursor + 1, "to": to}
        return event_ring.bare("gap", msgspec.json.encode(lost))


def event_source(reader: Reader, ping_s: float) -> EventSourceResponse:
    """The response that carries a reader's chunks; a reader that stalls is cut by its connection."""
    return EventSourceResponse(
        reader.stream(),
        ping=ping_s,
        sep="\n",
        ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
    )
