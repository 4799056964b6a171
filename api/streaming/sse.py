"""Effect: server-sent events of jobs: one subscription and one ring for all readers of a job."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator

import msgspec
from sse_starlette import EventSourceResponse

from api.coordinator.client import CoordinatorClient
from api.streaming import event_ring
from api.streaming.event_pages import CachedPage, EventPages
from runner.errors import RunnerError
from runner.protocol import front as front_protocol

logger = logging.getLogger(__name__)

#: Shortest interval, in seconds, between two wake-ups of readers: one costs about 8 us per reader.
WAKE_EVERY_S = 0.002


class JobChannel:
    """State of one subscribed job, shared by its readers."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.ring = event_ring.EventRing()
        self.readers = 0
        #: The latest durable event known, and whether the job has ended with it.
        self.last_seq = 0
        self.is_job_ended = False
        self.is_closed = False
        #: How the job waits, and a number that grows when that has changed.
        self.waiting: front_protocol.JobWaiting | None = None
        self.waiting_version = 0
        #: Set by `publish`, reset by the check for silence.
        self.has_published = False
        self.silence_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        #: Futures of the waiting readers; True: the time for a ping has come, and nothing else.
        self._waiters: list[asyncio.Future[bool]] = []
        self._wake_timer: asyncio.TimerHandle | None = None
        self._woken_at = 0.0

    def advance(self, last_seq: int, ended: bool) -> None:
        """Update the latest known event, from job events or a page."""
        if last_seq < self.last_seq:
            return
        # A page may be older than job events that arrived before it: only a later event revokes an end.
        ended = ended or (last_seq == self.last_seq and self.is_job_ended)
        has_advanced = last_seq > self.last_seq or ended != self.is_job_ended
        self.last_seq, self.is_job_ended = last_seq, ended
        if has_advanced:
            self._schedule_wake()

    def set_waiting(self, waiting: front_protocol.JobWaiting) -> None:
        """Set how the job waits, and wake the readers if that has changed for people."""
        old = self.waiting
        if old is not None and waiting.seq < old.seq:
            return
        self.waiting = waiting
        if old is None or _shown(old) != _shown(waiting):
            self.waiting_version += 1
            self._schedule_wake()

    def close(self) -> None:
        """End the streams of all readers."""
        self.is_closed = True
        self._wake_readers()

    def ping(self) -> None:
        """Have every reader that waits send a ping; one that is still sending needs none."""
        self._wake_readers(is_ping=True)

    async def wait_for_news(self) -> bool:
        """Wait until there may be new events, or the channel is closed; return True for a mere ping."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def _schedule_wake(self) -> None:
        if self._wake_timer is not None:
            return
        due_s = self._woken_at + WAKE_EVERY_S - self._loop.time()
        if due_s <= 0:
            self._wake_readers()
        else:
            self._wake_timer = self._loop.call_later(due_s, self._wake_readers)

    def _wake_readers(self, *, is_ping: bool = False) -> None:
        if self._wake_timer is not None:
            self._wake_timer.cancel()
            self._wake_timer = None
        self._woken_at = self._loop.time()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(is_ping)


def _shown(waiting: front_protocol.JobWaiting) -> tuple[object, ...]:
    return waiting.seq, waiting.reason, waiting.position, waiting.message


class StreamHub:
    """All channels of this front; `ping_s` is the interval of pings and of checks for silence."""

    def __init__(self, coordinator: CoordinatorClient, ping_s: float) -> None:
        self.pages = EventPages(coordinator)
        self._coordinator = coordinator
        self._ping_s = ping_s
        self._loop = asyncio.get_running_loop()
        self._channels: dict[str, JobChannel] = {}
        self._closed = False

    def subscribe(self, job_id: str) -> JobChannel:
        """Return the job's channel, subscribed from now on; it must be released by `unsubscribe`."""
        channel = self._channels.get(job_id)
        if channel is None:
            channel = self._channels[job_id] = JobChannel(job_id)
            channel.is_closed = self._closed
            channel.silence_timer = self._loop.call_later(self._ping_s, self._check_silence, channel)
            self._coordinator.send(front_protocol.SubscribeEvents(job_id))
        channel.readers += 1
        return channel

    def unsubscribe(self, channel: JobChannel) -> None:
        """Release a reader; the last one ends the subscription."""
        channel.readers -= 1
        if channel.readers == 0:
            del self._channels[channel.job_id]
            if channel.silence_timer is not None:
                channel.silence_timer.cancel()
            self.pages.drop_job(channel.job_id)
            self._coordinator.send(front_protocol.UnsubscribeEvents(channel.job_id))

    def publish(self, message: front_protocol.JobEvents) -> None:
        """Add new durable events from the coordinator to their job's channel."""
        channel = self._channels.get(message.job_id)
        # None: the last reader has left, and the coordinator had not received the unsubscribe yet.
        if channel is None or not message.events:
            return
        channel.has_published = True
        channel.ring.add(message.events)
        channel.advance(message.events[-1][0], message.is_job_ended)

    def publish_waiting(self, message: front_protocol.JobWaiting) -> None:
        """Pass how a job waits to its channel."""
        channel = self._channels.get(message.job_id)
        if channel is not None:
            channel.set_waiting(message)

    def close(self) -> None:
        """End all streams; later ones end at once."""
        self._closed = True
        for channel in self._channels.values():
            channel.close()

    def _check_silence(self, channel: JobChannel) -> None:
        """Ping the readers, and ask for the job's latest event after a period without events.

        Job events may have been skipped (if the front's credit was exhausted); after the last one nothing
        else would reveal that.
        """
        channel.silence_timer = self._loop.call_later(self._ping_s, self._check_silence, channel)
        channel.ping()
        is_silent, channel.has_published = not channel.has_published, False
        if not is_silent:
            return
        try:
            pending = self._coordinator.send_request(
                front_protocol.ReadEvents(0, channel.job_id, channel.last_seq, 0)
            )
        except RunnerError:
            return
        pending.add_done_callback(lambda answered: self._on_checked(channel, answered))

    def _on_checked(
        self, channel: JobChannel, answered: asyncio.Future[front_protocol.Reply | front_protocol.EventPage]
    ) -> None:
        if answered.cancelled() or answered.exception() is not None:
            return
        page = answered.result()
        if isinstance(page, front_protocol.EventPage):
            channel.advance(page.last_seq, page.is_job_ended)
            if page.waiting is not None:
                channel.set_waiting(page.waiting)
        elif page.status == 404:
            # The job was deleted while it was being read: no more events will come.
            channel.close()


class JobEventReader:
    """One client's position in a job's events, first in pages, then in the ring."""

    def __init__(
        self,
        hub: StreamHub,
        channel: JobChannel,
        cached_page: CachedPage,
        after: int | None,
        types: frozenset[str] | None,
        *,
        has_events: bool = True,
    ) -> None:
        """Create the reader; without `has_events` only the job of `cached_page` is used.

        `after` is the client's cursor; None: it starts with the present, and takes the page's last event.
        """
        self._hub = hub
        self._channel = channel
        self._job = cached_page.page.job
        self._cached_page = cached_page if has_events else None
        channel.advance(cached_page.page.last_seq, cached_page.page.is_job_ended)
        self._starts_now = after is None
        self._cursor = cached_page.page.last_seq if after is None else after
        self._types = types
        #: The client's own cursor is behind `_cursor`, because `types` hides the latest events.
        self._is_cursor_unsent = False
        #: The version of the channel's `waiting` that was sent last.
        self._waiting_version = 0
        if cached_page.page.waiting is not None:
            channel.set_waiting(cached_page.page.waiting)

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield all chunks in order, up to the job's last event or the server's shutdown.

        A large event comes in several chunks; nothing else comes between these.
        """
        head = event_ring.RETRY_FIELD + event_ring.encode_without_id("snapshot", self._job)
        if self._starts_now:
            # Without it, a client that reconnects would not name a cursor, and miss events.
            head += event_ring.encode_cursor(self._cursor)
        while True:
            chunk = b""
            if head and self._cached_page is None:
                chunk, head = head, b""
            elif self._cached_page is not None:
                before = self._cursor
                gap, chunk = self._take_page(self._cached_page)
                head += gap
                if not head and not chunk and self._cursor == before < self._channel.last_seq:
                    # The store has fewer events than were announced: the stream can't be consistent.
                    return
                if len(head) + len(chunk) <= event_ring.WRITE_BYTES:
                    head, chunk = b"", head + chunk
                # A large chunk is not copied: all readers of the page share it.
                for piece in event_ring.slices(head):
                    yield piece
                head = b""
            elif self._channel.is_closed:
                # Randomised, so that clients do not all reconnect at the same moment.
                yield b"retry: %d\n\n" % random.randint(1000, 4000)
                return
            elif self._cursor >= self._channel.last_seq:
                if self._channel.is_job_ended:
                    if self._is_cursor_unsent:
                        yield event_ring.encode_cursor(self._cursor)
                    return
                if waiting := self._take_waiting():
                    chunk = waiting
                elif await self._channel.wait_for_news():
                    yield event_ring.PING
            elif self._channel.ring.contains(self._cursor + 1):
                before = self._cursor
                chunk, self._cursor = self._channel.ring.read_after(before, self._types)
                self._is_cursor_unsent = self._types is not None
            elif not await self._fetch_page():
                return
            for piece in event_ring.slices(chunk):
                yield piece

    def _take_waiting(self) -> bytes:
        """Return the `waiting` event that this client has not got yet; empty if there is none.

        It holds until the job's next event, so it is sent to a reader that is between the two.
        """
        channel, waiting = self._channel, self._channel.waiting
        if waiting is None or waiting.seq != self._cursor or channel.waiting_version == self._waiting_version:
            return b""
        self._waiting_version = channel.waiting_version
        if self._types is not None and "waiting" not in self._types:
            return b""
        return event_ring.encode_waiting(waiting)

    async def _fetch_page(self) -> bool:
        """Fetch the next page of events that the ring does not hold; return False if there is none."""
        try:
            answer = await self._hub.pages.fetch_cached(self._channel.job_id, self._cursor)
        except RunnerError as error:
            logger.info("ending a stream of job %s: %s", self._channel.job_id, error.message)
            return False
        if isinstance(answer, CachedPage):
            self._cached_page = answer
            return True
        return False

    def _take_page(self, cached: CachedPage) -> tuple[bytes, bytes]:
        """Move the cursor past a page and forget it.

        Returns:
            A `gap` event if events were removed, otherwise b"", and the bytes of the page's events.
        """
        page, self._cached_page = cached.page, None
        self._channel.advance(page.last_seq, page.is_job_ended)
        reached = page.events[-1][0] if page.events else self._cursor
        first = page.events[0][0] if page.events else page.first_seq
        gap = b""
        if first > self._cursor + 1:
            gap = self._encode_gap(first - 1)
            reached = max(reached, first - 1)
        elif not page.events and page.last_seq > self._cursor:
            # Retention removed these events between the two reads.
            gap = self._encode_gap(page.last_seq)
            reached = page.last_seq
        self._cursor = max(self._cursor, reached)
        self._is_cursor_unsent = self._types is not None
        return gap, cached.encode_sse(self._types)

    def _encode_gap(self, to: int) -> bytes:
        lost = {"job_id": self._channel.job_id, "from": self._cursor + 1, "to": to}
        return event_ring.encode_without_id("gap", msgspec.json.encode(lost))


def event_source_response(reader: JobEventReader) -> EventSourceResponse:
    """Return the streaming response for a reader; a reader that stalls is disconnected."""
    # The reader pings by itself: the response would do so in the middle of a large event.
    return EventSourceResponse(reader.stream(), ping=0, sep="\n")
