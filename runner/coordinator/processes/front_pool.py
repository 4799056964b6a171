"""Effect: starts fronts, exchanges messages with them, and replaces those that fail."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from runner.coordinator.processes.child_pool import ChildPool
from runner.coordinator.processes.local_process import LocalProcess
from runner.coordinator.runtime.background_tasks import BackgroundTasks
from runner.processes.child import FrontConfig, Role
from runner.processes.pulse import PING_INTERVAL_S, Pulse
from runner.processes.restart_backoff import RestartBackoff
from runner.protocol.framing import FRAME_BYTES, FrameBuffer, pack, unpack, with_length
from runner.protocol.front import (
    Exit,
    FrontHello,
    Ping,
    Pong,
    Reply,
    ToCoordinator,
    encode,
    to_coordinator_decoder,
)
from runner.protocol.worker import UNDECODABLE

log = logging.getLogger(__name__)

_PING = encode(Ping())

#: Pause before another front is started in place of one that had said hello.
RESTART_S = 0.2
#: Shortest and longest such pause after a front that had not: it failed at its start.
FAILED_START_PAUSES_S = (0.4, 5.0)
#: Pause before the next try if no process could be started at all.
RETRY_S = 1.0
#: Time for killed fronts to exit.
KILL_TIMEOUT_S = 1.0
#: A front with more unread bytes than this gets no events, which it requests later, from its cursor. All
#: other messages wait here until it has read most of them.
UNREAD_MAX_BYTES = 4 * 1024 * 1024


class FrontListener(Protocol):
    """Handler of the connections, requests and exits of fronts."""

    def on_front_connected(self, front: FrontHandle) -> None:
        """Called when a front has said hello."""

    def on_request(self, front: FrontHandle, request: ToCoordinator) -> None:
        """Called with each request of a front."""

    def on_front_lost(self, front: FrontHandle) -> None:
        """Called when the process of a front has exited."""


class FrontHandle(asyncio.Protocol):
    """One front process and the stream to it.

    The messages that are sent in one iteration of the event loop go out in as few frames as their size
    permits, and only as fast as the front reads.
    """

    def __init__(self, process: LocalProcess, listener: FrontListener) -> None:
        self.process = process
        self.is_ready = False
        #: A hung front keeps its clients waiting.
        self.pulse = Pulse()
        self._listener = listener
        self._buffer = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        #: Messages without a frame; a reply is encoded only when it is sent.
        self._out: deque[bytes | Reply] = deque()
        self._is_flush_due = False
        #: The front has too many unread bytes.
        self._is_paused = False
        self.subscribed_jobs: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport of the open stream."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=UNREAD_MAX_BYTES)

    def pause_writing(self) -> None:
        """Called by the event loop when the front has too many unread bytes."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Called by the event loop when the front has read most of them."""
        self._is_paused = False
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Handle the requests in `data`; kill a front that sends undecodable messages."""
        self.pulse.record_sign_of_life()
        try:
            for frame in self._buffer.feed(data):
                for raw in unpack(frame):
                    self._handle(to_coordinator_decoder.decode(raw))
        except UNDECODABLE as error:
            log.error("front %d sent an undecodable message: %s; it is replaced", self.process.pid, error)
            self.process.kill()

    def _handle(self, request: ToCoordinator) -> None:
        if type(request) is FrontHello:
            self.is_ready = True
            self._listener.on_front_connected(self)
        elif type(request) is not Pong:
            self._listener.on_request(self, request)

    @property
    def is_answering(self) -> bool:
        """Whether the front takes requests, as far as its answers to pings show."""
        return self.is_ready and not self.pulse.is_late

    def ping(self) -> None:
        """Send a ping, or kill the front if it hangs. Called every `PING_INTERVAL_S`."""
        now_mono = asyncio.get_running_loop().time()
        if self.pulse.record_ping(now_mono, self.process.read_activity(), is_ready=self.is_ready):
            log.error(
                "front %d has been silent for %d s: it is replaced",
                self.process.pid,
                self.pulse.unanswered_pings,
            )
            self.process.kill()
        elif self.is_ready:
            self.send(_PING)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the transport and what was not sent; an exit of the process shows on the pidfd."""
        self._transport = None
        self._out.clear()

    def send(self, message: bytes) -> None:
        """Send an encoded message at the end of this iteration; drop it if the stream is closed by then."""
        self._out.append(message)
        self._flush_soon()

    def send_reply(self, reply: Reply) -> None:
        """Send a reply as `send` does; replies in a row that share their body travel as one message."""
        last = self._out[-1] if self._out else None
        if (
            isinstance(last, Reply)
            and last.body is reply.body
            and (last.status, last.retry_after_s) == (reply.status, reply.retry_after_s)
        ):
            last.other_request_ids.append(reply.request_id)
            return
        self._out.append(reply)
        self._flush_soon()

    def accepts_events(self) -> bool:
        """Return whether the front may be sent events: not while it has too many unread bytes."""
        transport = self._transport
        return (
            transport is not None
            and not self._is_paused
            and transport.get_write_buffer_size() < UNREAD_MAX_BYTES
        )

    def _flush_soon(self) -> None:
        if not self._is_flush_due and not self._is_paused:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Send messages until the front has too many unread bytes; the others are sent once it has read."""
        self._is_flush_due = False
        out, transport = self._out, self._transport
        if transport is None or transport.is_closing():
            out.clear()
            return
        while out and not self._is_paused:
            messages: list[bytes] = []
            size = 0
            while out and size < FRAME_BYTES:
                message = out.popleft()
                messages.append(message if isinstance(message, bytes) else encode(message))
                size += len(messages[-1])
            transport.write(with_length(pack(messages)))

    def close(self) -> None:
        """Close the stream."""
        if self._transport is not None:
            self._transport.close()


class _FrontSlot:
    """The place of one front."""

    role: Role = "front"

    def __init__(
        self,
        *,
        listening: Sequence[socket.socket],
        config: Callable[[list[int], int], FrontConfig],
        listener: FrontListener,
        backoff: RestartBackoff,
    ) -> None:
        self._listening = listening
        self._config = config
        self._listener = listener
        self._backoff = backoff
        self._tasks = BackgroundTasks()
        #: None while no process runs here.
        self.handle: FrontHandle | None = None
        #: Connects the stream to `handle`.
        self.connecting: asyncio.Task[None] | None = None

    def start(self) -> LocalProcess:
        """See `ChildSlot.start`; the stream is connected when `connecting` is done."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                listen_fds = [listening.fileno() for listening in self._listening]
                config = self._config(listen_fds, theirs.fileno())
                process = LocalProcess.spawn("front", config, pass_fds=(*listen_fds, theirs.fileno()))
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        self.handle = FrontHandle(process, self._listener)
        self.connecting = self._tasks.start(_connect(self.handle, ours))
        return process

    def restart_pause_s(self, now_mono: float) -> float:
        """See `ChildSlot.restart_pause_s`."""
        if self.handle is not None and self.handle.is_ready:
            self._backoff.reset()
            return RESTART_S
        return self._backoff.begin_pause(now_mono)

    def retry_pause_s(self, now_mono: float) -> float:
        """See `ChildSlot.retry_pause_s`."""
        return RETRY_S

    def on_exit(self, process: LocalProcess, status: int) -> None:
        """See `ChildSlot.on_exit`."""
        front, self.handle = self.handle, None
        assert front is not None
        front.close()
        self._listener.on_front_lost(front)


async def _connect(front: FrontHandle, stream: socket.socket) -> None:
    try:
        await asyncio.get_running_loop().create_unix_connection(lambda: front, sock=stream)
    except OSError as error:
        log.error("front %d could not be connected: %s; it is replaced", front.process.pid, error)
        stream.close()
        front.process.kill()


class FrontPool:
    """All fronts; they share the accept queue of each listening socket, which all inherit."""

    def __init__(
        self,
        *,
        count: int,
        listening: Sequence[socket.socket],
        config: Callable[[list[int], int], FrontConfig],
        listener: FrontListener,
    ) -> None:
        """Make a pool of `count` fronts.

        `config` returns the config of a front, from the descriptors of the listening sockets and of the
        stream to the coordinator.
        """
        first_pause_s, max_pause_s = FAILED_START_PAUSES_S
        # One for all fronts: a cause that ends one at its start ends the others too.
        backoff = RestartBackoff(first_pause_s=first_pause_s, max_pause_s=max_pause_s)
        self._slots = [
            _FrontSlot(listening=listening, config=config, listener=listener, backoff=backoff)
            for _ in range(count)
        ]
        self._children = ChildPool()
        self._ping_timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Start all fronts and return when the streams to them are connected.

        Raises:
            OSError: processes, descriptors or memory have run out.
        """
        for slot in self._slots:
            self._children.start(slot)
            if slot.connecting is not None:
                await slot.connecting
        self._ping_all()

    @property
    def handles(self) -> list[FrontHandle]:
        """The fronts whose processes run."""
        return [slot.handle for slot in self._slots if slot.handle is not None]

    @property
    def count(self) -> int:
        """The number of fronts that should run."""
        return len(self._slots)

    @property
    def lost_count(self) -> int:
        """The number of fronts that exited without a request to."""
        return self._children.lost_count

    @property
    def answering_count(self) -> int:
        """The number of fronts that take requests."""
        return sum(front.is_answering for front in self.handles)

    def send_all(self, message: bytes) -> None:
        """Send an encoded message to every front that has said hello."""
        for front in self.handles:
            if front.is_ready:
                front.send(message)

    @property
    def is_ready(self) -> bool:
        """Whether at least one front has said hello."""
        return any(front.is_ready for front in self.handles)

    async def close(self, timeout_s: float) -> None:
        """Request every front to finish its replies and exit; kill those that still run after `timeout_s`."""
        self._stop_pings()
        for front in self.handles:
            front.send(encode(Exit()))
        if not await self._children.wait_all_exited(timeout_s):
            await self._children.kill_and_wait(KILL_TIMEOUT_S)

    def kill_all(self) -> None:
        """Kill all fronts and start none any more."""
        self._stop_pings()
        self._children.kill_all()

    def _ping_all(self) -> None:
        self._ping_timer = asyncio.get_running_loop().call_later(PING_INTERVAL_S, self._ping_all)
        for front in self.handles:
            front.ping()

    def _stop_pings(self) -> None:
        self._children.stop_restarts()
        if self._ping_timer is not None:
            self._ping_timer.cancel()
