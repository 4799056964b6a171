"""Effect: the front's end of the stream to the coordinator: questions out, answers and feeds in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, cast

from runner.errors import RunnerError, Unavailable
from runner.protocol import framing
from runner.protocol import front as front_protocol

logger = logging.getLogger(__name__)

#: Questions without an answer yet; beyond it clients are told to come back.
MAX_PENDING = 20_000
#: Bytes that the coordinator has not taken yet; beyond it clients are told to come back.
MAX_UNSENT_BYTES = 256 * 1024 * 1024
#: A frame is closed at this size, so that two large bodies of one turn do not pass its bound.
FRAME_BYTES = 4 * 1024 * 1024
#: How long the coordinator may take over what needs no waiting.
REPLY_TIMEOUT_S = 30.0

CoordinatorReply = front_protocol.Reply | front_protocol.EventPage
CoordinatorRequest = (
    front_protocol.SubmitJobs
    | front_protocol.GetJob
    | front_protocol.ListJobs
    | front_protocol.JobAction
    | front_protocol.GetDocument
    | front_protocol.SetQueue
    | front_protocol.SetDevice
    | front_protocol.AwaitHandler
    | front_protocol.ReloadHandlers
    | front_protocol.LoadHandler
    | front_protocol.UnloadHandler
    | front_protocol.ReadEvents
)


class CoordinatorListener(Protocol):
    """Whom the link tells what the coordinator says unasked."""

    def on_job_events(self, message: front_protocol.JobEvents) -> None:
        """New durable events of a watched job."""

    def on_handlers_update(self, update: front_protocol.HandlersUpdate) -> None:
        """The handlers that are known now."""

    def on_memory_level(self, message: front_protocol.MemoryLevel) -> None:
        """How much is known of the devices now."""

    def on_shutdown_begun(self, deadline_s: float) -> None:
        """Shutdown has begun."""

    def on_exit_requested(self) -> None:
        """End within a second."""

    def on_coordinator_lost(self) -> None:
        """The coordinator is gone."""


class CoordinatorClient(asyncio.Protocol):
    """One stream to the coordinator; what one turn of the loop asks travels in one frame."""

    def __init__(self, listener: CoordinatorListener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._frames = framing.FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        #: Question number -> who waits, and until when (loop time).
        self._pending: dict[int, tuple[asyncio.Future[CoordinatorReply], float]] = {}
        self._last_request_id = 0
        self._error: RunnerError | None = None
        self._expiry_timer = self._loop.call_later(1.0, self._expire_overdue)
        self._message_handlers: dict[type, Callable[..., None]] = {
            front_protocol.Reply: self._on_reply,
            front_protocol.EventPage: self._on_reply,
            front_protocol.JobEvents: listener.on_job_events,
            front_protocol.HandlersUpdate: listener.on_handlers_update,
            front_protocol.MemoryLevel: listener.on_memory_level,
            front_protocol.ShutdownBegun: lambda drain: listener.on_shutdown_begun(drain.deadline_s),
            front_protocol.Exit: lambda _exit: listener.on_exit_requested(),
            front_protocol.Ping: lambda _ping: self.send(front_protocol.Pong()),
        }

    @property
    def pending_count(self) -> int:
        """Questions that wait for an answer."""
        return len(self._pending)

    def send_request(
        self, message: CoordinatorRequest, wait_s: float = 0.0
    ) -> asyncio.Future[CoordinatorReply]:
        """The answer to come; `wait_s` is what the question itself asks the coordinator to wait.

        Raises:
            Unavailable: no coordinator, or too much is under way already.
        """
        if self._error is not None:
            raise self._error
        transport = self._transport
        if (
            transport is None
            or len(self._pending) >= MAX_PENDING
            or transport.get_write_buffer_size() > MAX_UNSENT_BYTES
        ):
            raise Unavailable("too many requests are under way; try again", retry_after_s=1)
        self._last_request_id += 1
        message.request_id = self._last_request_id
        future: asyncio.Future[CoordinatorReply] = self._loop.create_future()
        self._pending[self._last_request_id] = (future, self._loop.time() + wait_s + REPLY_TIMEOUT_S)
        self.send(message)
        return future

    async def request_reply(self, message: CoordinatorRequest, wait_s: float = 0.0) -> front_protocol.Reply:
        """Ask what is answered by a `Reply`."""
        answer = await self.send_request(message, wait_s)
        if isinstance(answer, front_protocol.EventPage):
            raise Unavailable("the coordinator gave a page where a reply was due")
        return answer

    def send(
        self,
        message: CoordinatorRequest
        | front_protocol.SubscribeEvents
        | front_protocol.UnsubscribeEvents
        | front_protocol.FrontHello
        | front_protocol.Pong,
    ) -> None:
        """Send something; without a coordinator it goes nowhere."""
        if self._error is not None:
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(front_protocol.encode(message))

    def fail_pending(self, error: RunnerError) -> None:
        """Answer all who wait, and all who ask from now on, with `error`."""
        self._error = error
        pending, self._pending = self._pending, {}
        for future, _ in pending.values():
            if not future.done():
                future.set_exception(error)
        self._expiry_timer.cancel()

    def close(self) -> None:
        """Let go of the stream."""
        self._expiry_timer.cancel()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = transport = cast(asyncio.Transport, transport)
        # Never paused: what is unsent is bounded by MAX_UNSENT_BYTES, and told to clients.
        transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if self._error is None:
            self.fail_pending(Unavailable("the coordinator is gone; this server is ending", retry_after_s=2))
        self._transport = None
        self._listener.on_coordinator_lost()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        try:
            for frame in self._frames.feed(data):
                for encoded in framing.unpack(frame):
                    message = front_protocol.to_front_decoder.decode(encoded)
                    self._message_handlers[type(message)](message)
        except Exception:
            # A stream that can't be read further is as good as none.
            logger.exception("the coordinator's stream can't be read")
            if self._transport is not None:
                self._transport.abort()

    def _on_reply(self, reply: CoordinatorReply) -> None:
        waiter = self._pending.pop(reply.request_id, None)
        # None: who asked has stopped waiting.
        if waiter is not None and not waiter[0].done():
            waiter[0].set_result(reply)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is None:
            return
        batch: list[bytes] = []
        size = 0
        for message in out:
            if batch and size + len(message) > FRAME_BYTES:
                self._transport.write(framing.with_length(framing.pack(batch)))
                batch, size = [], 0
            batch.append(message)
            size += len(message)
        self._transport.write(framing.with_length(framing.pack(batch)))

    def _expire_overdue(self) -> None:
        """Give up on answers that are overdue, so that no client waits for ever."""
        now = self._loop.time()
        self._expiry_timer = self._loop.call_later(1.0, self._expire_overdue)
        overdue = [
            request_id
            for request_id, (future, until) in self._pending.items()
            if until < now or future.done()
        ]
        for request_id in overdue:
            future, _ = self._pending.pop(request_id)
            if not future.done():
                future.set_exception(
                    Unavailable(
                        f"the coordinator did not answer within {REPLY_TIMEOUT_S:g} s", retry_after_s=5
                    )
                )
