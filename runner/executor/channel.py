"""Effect: the executor's second thread: reads what the worker says, and sends what has waited long enough."""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from runner.executor import bootstrap
from runner.executor.sender import Sender
from runner.protocol import framing
from runner.protocol import worker as worker_protocol

#: A larger buffer is mapped and unmapped by the allocator for every read.
READ_BYTES = 64 * 1024
#: While user code runs, a channel that it has closed is noticed within this time.
LOOK_S = 0.25


class Channel(threading.Thread):
    """Never blocks on anything but its poll, so that a cancel always gets through."""

    def __init__(
        self,
        fd: int,
        wake_fd: int,
        outbox: Sender,
        *,
        on: Mapping[type, Callable[[Any], None]],
        tick: Callable[[float], float | None],
        lost: Callable[[], NoReturn],
    ) -> None:
        """`tick(now)` does what is due by now and gives the moment of its next duty; it is asked after every
        wake-up. `on` maps each message type to what is done about it."""
        super().__init__(name="runner-channel", daemon=True)
        self._fd = fd
        self._wake_fd = wake_fd
        self._outbox = outbox
        self._on = on
        self._tick = tick
        self._lost = lost
        self._buffer = framing.FrameBuffer()

    def run(self) -> None:
        """Until the process ends; a mistake of ours here ends it, for nobody could reach it any more."""
        try:
            self._serve_for_ever()
        except BaseException as error:
            bootstrap.fail(error)

    def _serve_for_ever(self) -> NoReturn:
        outbox = self._outbox
        poller = select.poll()
        poller.register(self._wake_fd, select.POLLIN)
        while True:
            outbox.wakes_at = math.inf
            moment = self._next(time.monotonic())
            outbox.wakes_at = moment
            # What became due between the two lines above was told by nobody: look once more.
            moment = min(moment, self._next(time.monotonic()))
            wait_ms = None if moment == math.inf else max(0, math.ceil((moment - time.monotonic()) * 1000))
            poller.register(
                self._fd, select.POLLIN | select.POLLOUT if outbox.unsent_bytes else select.POLLIN
            )
            for fd, event in poller.poll(wait_ms):
                self._serve(fd, event)

    def _next(self, now: float) -> float:
        duty = self._tick(now)
        due = self._outbox.due
        if due is not None and due <= now:
            self._outbox.send()
            due = self._outbox.due
        return min(math.inf if duty is None else duty, math.inf if due is None else due)

    def _serve(self, fd: int, event: int) -> None:
        if event & (select.POLLNVAL | select.POLLERR):
            self._lost()
        if fd == self._wake_fd:
            os.eventfd_read(fd)
            return
        if event & select.POLLOUT:
            self._outbox.send()
        if event & (select.POLLIN | select.POLLHUP):
            self._read()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                self._lost()
            if not chunk:
                self._lost()
            try:
                for frame in self._buffer.feed(chunk):
                    for encoded in framing.unpack(frame):
                        message = worker_protocol.to_executor_decoder.decode(encoded)
                        self._on[type(message)](message)
            except worker_protocol.UNDECODABLE:
                # Nothing that follows could be trusted.
                self._lost()
            if len(chunk) < READ_BYTES:
                return
