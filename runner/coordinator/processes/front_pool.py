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
PULSE_S = 1.0  # guard: pulse
#: Pulses without one, after which a front is killed and replaced: a hung one keeps its clients waiting.
#: Counted in questions, not in time: nobody is to blame for a machine or a coordinator that stood still.
SILENT_PULSES = 8  # guard: silent-pulses
#: The same for one that works all the while (a large bulk on a machine that is short of cores), and for one
#: that has not said hello yet.
BUSY_PULSES = 30  # guard: busy-pulses
#: Who gets less than this part of a core does not work.
BUSY_SHARE = 0.05
#: One that owes more than this is told of as not answering.
LATE_PULSES = 2
#: A front that does not read is sent no events beyond this; it asks again from its cursor.
FEED_MAX_BYTES = 4 * 1024 * 1024


class Listener(Protocol):
    """Who answers the fronts."""

    def on_front(self, front: Front) -> None:
        """It has said hello."""

    def on_question(self, front: Front, question: ToCoordinator) -> None:
        """It asks."""

    def on_front_lost(self, front: Front) -> None:
        """Its process has ended."""


class Front(asyncio.Protocol):
    """One front process and the stream to it. What a turn of the loop sends is one frame."""

    def __init__(self, child: Child, listener: Listener) -> None:
        self.child = child
        self.ready = False
        #: Pulses since it was last heard of.
        self.silent = 0
        #: The processor time that it had used when it was heard of last.
        self._used_s = 0.0
        self._listener = listener
        self._buffer = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self.watched: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The stream is open."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Questions; a front that speaks another language is killed and replaced."""
        self.silent = 0
        try:
            for frame in self._buffer.feed(data):
                for raw in unpack(frame):
                    self._question(to_coordinator_decoder.decode(raw))
        except UNDECODABLE as error:
            log.error("front %d speaks another language: %s", self.child.pid, error)
            self.child.signal(signal.SIGKILL)

    def _question(self, question: ToCoordinator) -> None:
        if type(question) is FrontHello:
            self.ready = True
            self._listener.on_front(self)
        elif type(question) is not Pong:
            self._listener.on_question(self, question)

    @property
    def answers(self) -> bool:
        """Whether it takes requests, as far as can be told."""
        return self.ready and self.silent <= LATE_PULSES

    def pulse(self) -> None:
        """Ask for a sign of life; kill it where too many were asked for in vain."""
        if self.silent == 0:
            self._used_s = _used_s(self.child.pid)
        if self.silent >= BUSY_PULSES or (self.silent >= SILENT_PULSES and self.ready and not self._works()):
            log.error("front %d has been silent for %d s: it is replaced", self.child.pid, self.silent)
            self.child.signal(signal.SIGKILL)
        self.silent += 1
        if self.ready:
            self.send(_PING)

    def connection_lost(self, exc: Exception | None) -> None:
        """Its death shows on the pidfd."""
        self._transport = None

    def _works(self) -> bool:
        return _used_s(self.child.pid) - self._used_s >= self.silent * PULSE_S * BUSY_SHARE

    def send(self, message: bytes) -> None:
        """Send an encoded message at the end of this turn; dropped where the front is gone."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(message)

    def takes_events(self) -> bool:
        """False while too much lies unread before it."""
        transport = self._transport
        return transport is not None and transport.get_write_buffer_size() < FEED_MAX_BYTES

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(with_length(pack(out)))

    def close(self) -> None:
        """Close the stream."""
        if self._transport is not None:
            self._transport.close()


def _used_s(pid: int) -> float:
    """Processor time that a process has used; 0 where it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    # The name in brackets may hold anything; utime and stime are the 12th and 13th field behind it.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Fronts:
    """All fronts, on one listening socket that each inherits."""

    def __init__(
        self,
        *,
        count: int,
        listening: socket.socket,
        config: Callable[[int, int], FrontConfig],
        listener: Listener,
    ) -> None:
        self._count = count
        self._listening = listening
        #: (listen_fd, control_fd) -> what a front is told.
        self._config = config
        self._listener = listener
        self._closing = False
        #: Fronts in a row that ended before they had said hello.
        self._fails = 0
        self._starts = BackgroundTasks()
        self._gone = asyncio.Event()
        self._gone.set()
        self._pulse: asyncio.TimerHandle | None = None
        self.all: list[Front] = []
        #: How many have ended without being told to.
        self.lost = 0

    async def open(self) -> None:
        """Start them."""
        for _ in range(self._count):
            await self._start()
        self._watch()

    @property
    def count(self) -> int:
        """How many there should be."""
        return self._count

    @property
    def answering(self) -> int:
        """How many take requests."""
        return sum(front.answers for front in self.all)

    def send_all(self, message: bytes) -> None:
        """Send to every front that has said hello."""
        for front in self.all:
            if front.ready:
                front.send(message)

    @property
    def ready(self) -> bool:
        """Whether at least one takes requests."""
        return any(front.ready for front in self.all)

    async def close(self, timeout_s: float) -> None:
        """Let fronts finish their answers and end; killed after `timeout_s`."""
        self._stop_watching()
        for front in self.all:
            front.send(encode(Exit()))
        try:
            await asyncio.wait_for(self._gone.wait(), timeout_s)
        except TimeoutError:
            for front in self.all:
                front.child.signal(signal.SIGKILL)
            try:
                await asyncio.wait_for(self._gone.wait(), 1.0)
            except TimeoutError:
                log.error("these fronts did not end: %s", [front.child.pid for front in self.all])

    def kill_all(self) -> None:
        """SIGKILL them, for good."""
        self._stop_watching()
        for front in self.all:
            front.child.signal(signal.SIGKILL)

    def _watch(self) -> None:
        self._pulse = asyncio.get_running_loop().call_later(PULSE_S, self._watch)
        for front in self.all:
            front.pulse()

    def _stop_watching(self) -> None:
        self._closing = True
        if self._pulse is not None:
            self._pulse.cancel()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            config = self._config(self._listening.fileno(), theirs.fileno())
            child = start_child("front", config, pass_fds=(self._listening.fileno(), theirs.fileno()))
        finally:
            theirs.close()
        loop = asyncio.get_running_loop()
        front = Front(child, self._listener)
        self.all.append(front)
        self._gone.clear()
        await loop.create_unix_connection(lambda: front, sock=ours)
        loop.add_reader(child.pidfd, self._on_death, front)

    def _on_death(self, front: Front) -> None:
        status = front.child.reap()
        if status is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(front.child.pidfd)
        front.child.close()
        front.close()
        self.all.remove(front)
        self._listener.on_front_lost(front)
        if not self.all:
            self._gone.set()
        self._fails = 0 if front.ready else self._fails + 1
        if not self._closing:
            self.lost += 1
            log.error("front %d ended with status %d: a new one is started", front.child.pid, status)
            loop.call_later(min(RESTART_S[1], RESTART_S[0] * 2.0**self._fails), self._again)

    def _again(self) -> None:
        if not self._closing:
            self._starts.start(self._start()).add_done_callback(self._started)

    def _started(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(task.exception(), OSError):
            # No process or descriptor to be had: without another try nobody would answer any more.
            log.error("no front could be started: %s", task.exception())
            asyncio.get_running_loop().call_later(RETRY_S, self._again)
        else:
            task.result()
