"""Effect: the front's client of the coordinator: sends requests, receives replies and job events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, cast

from runner.errors import RunnerError, Unavailable
from runner.protocol import framing
from runner.protocol import front as front_protocol

logger = logging.getLogger(__name__)

#: Limit on requests without a reply; beyond it clients get 503 and retry later.
MAX_PENDING = 20_000
#: Limit on bytes that the coordinator has not read; beyond it clients get 503 and retry later.
MAX_UNSENT_BYTES = 256 * 1024 * 1024
#: Longest wait, in seconds, for the reply to a request that does not itself wait.
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
    """Receives the messages that the coordinator sends without a request."""

    def on_job_events(self, message: front_protocol.JobEvents) -> None:
        """Handle new durable events of a subscribed job."""

    def on_job_waiting(self, message: front_protocol.JobWaiting) -> None:
        """Handle a change of how a subscribed job waits."""

    def on_handlers_update(self, update: front_protocol.HandlersUpdate) -> None:
        """Handle a new list of all known handlers."""

    def on_memory_level(self, message: front_protocol.MemoryLevel) -> None:
        """Handle a new level of memory attribution."""

    def on_shutdown_begun(self, deadline_s: float) -> None:
        """Handle the beginning of a shutdown, which ends `deadline_s` seconds from now."""

    def on_exit_requested(self) -> None:
        """Handle the request to exit within a second."""

    def on_coordinator_lost(self) -> None:
        """Handle the loss of the coordinator."""


class CoordinatorClient(asyncio.Protocol):
    """The stream to the coordinator; requests of one loop iteration share a frame."""

    def __init__(self, listener: CoordinatorListener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._frames = framing.FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        #: Request id -> the future of its reply, and the deadline for it (loop time).
        self._pending: dict[int, tuple[asyncio.Future[CoordinatorReply], float]] = {}
        self._last_request_id = 0
        self._error: RunnerError | None = None
        self._expiry_timer = self._loop.call_later(1.0, self._expire_overdue)
        self._message_handlers: dict[type, Callable[..., None]] = {
            front_protocol.Reply: self._on_reply,
            front_protocol.EventPage: lambda page: self._resolve(page.request_id, page),
            front_protocol.JobEvents: listener.on_job_events,
            front_protocol.JobWaiting: listener.on_job_waiting,
            front_protocol.HandlersUpdate: listener.on_handlers_update,
            front_protocol.MemoryLevel: listener.on_memory_level,
            front_protocol.ShutdownBegun: lambda drain: listener.on_shutdown_begun(drain.deadline_s),
            front_protocol.Exit: lambda _exit: listener.on_exit_requested(),
            front_protocol.Ping: lambda _ping: self.send(front_protocol.Pong()),
        }

    @property
    def pending_count(self) -> int:
        """Return the number of requests without a reply."""
        return len(self._pending)

    def send_request(
        self, message: CoordinatorRequest, wait_s: float = 0.0
    ) -> asyncio.Future[CoordinatorReply]:
        """Send a request; return the future of its reply.

        `wait_s` is added to the timeout if the request itself waits. A timeout fails the future with
        Unavailable.

        Raises:
            Unavailable: no coordinator, or too many requests are pending.
        """
        if self._error is not None:
            raise self._error
        transport = self._transport
        if (
            transport is None
            or len(self._pending) >= MAX_PENDING
            or transport.get_write_buffer_size() > MAX_UNSENT_BYTES
        ):
            raise Unavailable("too many pending requests; try again later", retry_after_s=1)
        self._last_request_id += 1
        message.request_id = self._last_request_id
        future: asyncio.Future[CoordinatorReply] = self._loop.create_future()
        self._pending[self._last_request_id] = (future, self._loop.time() + wait_s + REPLY_TIMEOUT_S)
        self.send(message)
        return future

    async def request_reply(self, message: CoordinatorRequest, wait_s: float = 0.0) -> front_protocol.Reply:
        """Send a request that is answered by a `Reply`, and return that; raises as `send_request`."""
        answer = await self.send_request(message, wait_s)
        if isinstance(answer, front_protocol.EventPage):
            raise Unavailable("the coordinator sent an event page instead of a reply")
        return answer

    def send(
        self,
        message: CoordinatorRequest
        | front_protocol.SubscribeEvents
        | front_protocol.UnsubscribeEvents
        | front_protocol.FrontHello
        | front_protocol.Pong,
    ) -> None:
        """Send a message without waiting; it is dropped if there is no coordinator."""
        if self._error is not None:
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(front_protocol.encode(message))

    def fail_pending(self, error: RunnerError) -> None:
        """Fail all pending and all later requests with `error`."""
        self._error = error
        pending, self._pending = self._pending, {}
        for future, _ in pending.values():
            if not future.done():
                future.set_exception(error)
        self._expiry_timer.cancel()

    def close(self) -> None:
        """Close the stream."""
        self._expiry_timer.cancel()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = transport = cast(asyncio.Transport, transport)
        # Writing is never paused: MAX_UNSENT_BYTES bounds unsent data, and clients retry.
        transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        if self._error is None:
            self.fail_pending(
                Unavailable("the coordinator is gone; this server is shutting down", retry_after_s=2)
            )
        self._transport = None
        self._listener.on_coordinator_lost()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        try:
            for frame in self._frames.feed(data):
                for encoded in framing.unpack(frame):
                    message = front_protocol.to_front_decoder.decode(encoded)
                    self._message_handlers[type(message)](message)
        except Exception:
            # An invalid stream can't be read any further: treat it as closed.
            logger.exception("cannot read the stream of the coordinator")
            if self._transport is not None:
                self._transport.abort()

    def _on_reply(self, reply: front_protocol.Reply) -> None:
        self._resolve(reply.request_id, reply)
        for request_id in reply.other_request_ids:
            self._resolve(request_id, reply)

    def _resolve(self, request_id: int, reply: CoordinatorReply) -> None:
        waiter = self._pending.pop(request_id, None)
        # None: the request timed out or its client has left.
        if waiter is not None and not waiter[0].done():
            waiter[0].set_result(reply)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is None:
            return
        for messages in framing.group(out):
            self._transport.write(framing.with_length(framing.pack(messages)))

    def _expire_overdue(self) -> None:
        """Fail overdue requests, so that no client waits for ever."""
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
