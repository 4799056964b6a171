"""Effect: the front processes: starts them, speaks the control stream with them, replaces dead ones."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from runner.coordinator.runtime.background_tasks import BackgroundTasks
from runner.processes.child import Child, FrontConfig, start_child
from runner.protocol.framing import FrameBuffer, pack, unpack, with_length
from runner.protocol.front import Exit, FrontHello, Ping, Pong, ToCoordinator, encode, to_coordinator_decoder
from runner.protocol.worker import UNDECODABLE

log = logging.getLogger(__name__)

_PING = encode(Ping())

#: A dead front is started again after 0.2 s; one that never got to say hello, twice as late each time.
RESTART_S = (0.2, 5.0)
#: A front that could not even be started is started again after so long.
RETRY_S = 1.0
#: Every front is asked for a sign of life so often.
PING_INTERVAL_S = 1.0  # guard: pulse
#: Pulses without one, after which a front is killed and replaced: a hung one keeps its clients waiting.
#: Counted in questions, not in time: nobody is to blame for a machine or a coordinator that stood still.
SILENT_PINGS_MAX = 8  # guard: silent-pulses
#: The same for one that works all the while (a large bulk on a machine that is short of cores), and for one
#: that has not said hello yet.
BUSY_PINGS_MAX = 30  # guard: busy-pulses
#: Who gets less than this part of a core does not work.
BUSY_CPU_SHARE = 0.05
#: One that owes more than this is told of as not answering.
LATE_PINGS_MAX = 2
#: A front that does not read is sent no events beyond this; it asks again from its cursor.
UNREAD_MAX_BYTES = 4 * 1024 * 1024


class FrontListener(Protocol):
    """Who answers the fronts."""

    def on_front_connected(self, front: FrontHandle) -> None:
        """It has said hello."""

    def on_request(self, front: FrontHandle, request: ToCoordinator) -> None:
        """It asks."""

    def on_front_lost(self, front: FrontHandle) -> None:
        """Its process has ended."""


class FrontHandle(asyncio.Protocol):
    """One front process and the stream to it. What a turn of the loop sends is one frame."""

    def __init__(self, child: Child, listener: FrontListener) -> None:
        self.child = child
        self.is_ready = False
        #: Pulses since it was last heard of.
        self.unanswered_pings = 0
        #: The processor time that it had used when it was heard of last.
        self._cpu_s_when_heard = 0.0
        self._listener = listener
        self._buffer = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self.subscribed_jobs: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The stream is open."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Questions; a front that speaks another language is killed and replaced."""
        self.unanswered_pings = 0
        try:
            for frame in self._buffer.feed(data):
                for raw in unpack(frame):
                    self._handle(to_coordinator_decoder.decode(raw))
        except UNDECODABLE as error:
            log.error("front %d speaks another language: %s", self.child.pid, error)
            self.child.signal(signal.SIGKILL)

    def _handle(self, request: ToCoordinator) -> None:
        if type(request) is FrontHello:
            self.is_ready = True
            self._listener.on_front_connected(self)
        elif type(request) is not Pong:
            self._listener.on_request(self, request)

    @property
    def is_answering(self) -> bool:
        """Whether it takes requests, as far as can be told."""
        return self.is_ready and self.unanswered_pings <= LATE_PINGS_MAX

    def ping(self) -> None:
        """Ask for a sign of life; kill it where too many were asked for in vain."""
        if self.unanswered_pings == 0:
            self._cpu_s_when_heard = _cpu_time_s(self.child.pid)
        if self.unanswered_pings >= BUSY_PINGS_MAX or (
            self.unanswered_pings >= SILENT_PINGS_MAX and self.is_ready and not self._is_busy()
        ):
            log.error(
                "front %d has been silent for %d s: it is replaced", self.child.pid, self.unanswered_pings
            )
            self.child.signal(signal.SIGKILL)
        self.unanswered_pings += 1
        if self.is_ready:
            self.send(_PING)

    def connection_lost(self, exc: Exception | None) -> None:
        """Its death shows on the pidfd."""
        self._transport = None

    def _is_busy(self) -> bool:
        return (
            _cpu_time_s(self.child.pid) - self._cpu_s_when_heard
            >= self.unanswered_pings * PING_INTERVAL_S * BUSY_CPU_SHARE
        )

    def send(self, message: bytes) -> None:
        """Send an encoded message at the end of this turn; dropped where the front is gone."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(message)

    def accepts_events(self) -> bool:
        """False while too much lies unread before it."""
        transport = self._transport
        return transport is not None and transport.get_write_buffer_size() < UNREAD_MAX_BYTES

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(with_length(pack(out)))

    def close(self) -> None:
        """Close the stream."""
        if self._transport is not None:
            self._transport.close()


def _cpu_time_s(pid: int) -> float:
    """Processor time that a process has used; 0 where it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    # The name in brackets may hold anything; utime and stime are the 12th and 13th field behind it.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class FrontPool:
    """All fronts, on one listening socket that each inherits."""

    def __init__(
        self,
        *,
        count: int,
        listening: socket.socket,
        config: Callable[[int, int], FrontConfig],
        listener: FrontListener,
    ) -> None:
        self._count = count
        self._listening = listening
        #: (listen_fd, control_fd) -> what a front is told.
        self._config = config
        self._listener = listener
        self._closing = False
        #: Fronts in a row that ended before they had said hello.
        self._failed_starts = 0
        self._starts = BackgroundTasks()
        self._all_exited = asyncio.Event()
        self._all_exited.set()
        self._ping_timer: asyncio.TimerHandle | None = None
        self.handles: list[FrontHandle] = []
        #: How many have ended without being told to.
        self.lost_count = 0

    async def open(self) -> None:
        """Start them."""
        for _ in range(self._count):
            await self._start_front()
        self._ping_all()

    @property
    def count(self) -> int:
        """How many there should be."""
        return self._count

    @property
    def answering_count(self) -> int:
        """How many take requests."""
        return sum(front.is_answering for front in self.handles)

    def send_all(self, message: bytes) -> None:
        """Send to every front that has said hello."""
        for front in self.handles:
            if front.is_ready:
                front.send(message)

    @property
    def is_ready(self) -> bool:
        """Whether at least one takes requests."""
        return any(front.is_ready for front in self.handles)

    async def close(self, timeout_s: float) -> None:
        """Let fronts finish their answers and end; killed after `timeout_s`."""
        self._stop_pings()
        for front in self.handles:
            front.send(encode(Exit()))
        try:
            await asyncio.wait_for(self._all_exited.wait(), timeout_s)
        except TimeoutError:
            for front in self.handles:
                front.child.signal(signal.SIGKILL)
            try:
                await asyncio.wait_for(self._all_exited.wait(), 1.0)
            except TimeoutError:
                log.error("these fronts did not end: %s", [front.child.pid for front in self.handles])

    def kill_all(self) -> None:
        """SIGKILL them, for good."""
        self._stop_pings()
        for front in self.handles:
            front.child.signal(signal.SIGKILL)

    def _ping_all(self) -> None:
        self._ping_timer = asyncio.get_running_loop().call_later(PING_INTERVAL_S, self._ping_all)
        for front in self.handles:
            front.ping()

    def _stop_pings(self) -> None:
        self._closing = True
        if self._ping_timer is not None:
            self._ping_timer.cancel()

    async def _start_front(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            config = self._config(self._listening.fileno(), theirs.fileno())
            child = start_child("front", config, pass_fds=(self._listening.fileno(), theirs.fileno()))
        finally:
            theirs.close()
        loop = asyncio.get_running_loop()
        front = FrontHandle(child, self._listener)
        self.handles.append(front)
        self._all_exited.clear()
        await loop.create_unix_connection(lambda: front, sock=ours)
        loop.add_reader(child.pidfd, self._on_death, front)

    def _on_death(self, front: FrontHandle) -> None:
        status = front.child.reap()
        if status is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(front.child.pidfd)
        front.child.close()
        front.close()
        self.handles.remove(front)
        self._listener.on_front_lost(front)
        if not self.handles:
            self._all_exited.set()
        self._failed_starts = 0 if front.is_ready else self._failed_starts + 1
        if not self._closing:
            self.lost_count += 1
            log.error("front %d ended with status %d: a new one is started", front.child.pid, status)
            loop.call_later(min(RESTART_S[1], RESTART_S[0] * 2.0**self._failed_starts), self._restart)

    def _restart(self) -> None:
        if not self._closing:
            self._starts.start(self._start_front()).add_done_callback(self._on_started)

    def _on_started(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(task.exception(), OSError):
            # No process or descriptor to be had: without another try nobody would answer any more.
            log.error("no front could be started: %s", task.exception())
            asyncio.get_running_loop().call_later(RETRY_S, self._restart)
        else:
            task.result()
