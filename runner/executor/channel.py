"""Effect: the executor's second thread: reads the worker's commands and sends messages that are due."""

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

#: Most bytes of one read; the allocator would map and unmap a larger buffer for every read.
READ_BYTES = 64 * 1024
#: Longest time until a channel that user code has closed is noticed; seconds.
POLL_S = 0.25


class ChannelThread(threading.Thread):
    """Reads commands and sends what is due, as long as the process lives.

    It never blocks on anything but its poll, so that a cancel request always gets through.
    """

    def __init__(
        self,
        fd: int,
        wake_fd: int,
        sender: Sender,
        *,
        handlers: Mapping[type, Callable[[Any], None]],
        do_due: Callable[[float], float | None],
        on_lost: Callable[[], NoReturn],
    ) -> None:
        """Create the thread.

        `do_due(now)` does everything due by now and returns when it must run again (monotonic seconds; None:
        no time is set). It is called after every wake-up. `handlers` maps each message type to its function.
        `on_lost` is called when the worker is gone or sends invalid bytes, and does not return.
        """
        super().__init__(name="runner-channel", daemon=True)
        self._fd = fd
        self._wake_fd = wake_fd
        self._sender = sender
        self._handlers = handlers
        self._do_due = do_due
        self._on_lost = on_lost
        self._buffer = framing.FrameBuffer()

    def run(self) -> None:
        """Serve until the process ends; an internal error ends the process, as nothing could reach it."""
        try:
            self._serve_forever()
        except BaseException as error:
            bootstrap.exit_failed(error)

    def _serve_forever(self) -> NoReturn:
        sender = self._sender
        poller = select.poll()
        poller.register(self._wake_fd, select.POLLIN)
        while True:
            sender.wakes_at = math.inf
            due_mono = self._send_due(time.monotonic())
            sender.wakes_at = due_mono
            # Nothing wakes this thread for work that became due between the two lines above: check again.
            due_mono = min(due_mono, self._send_due(time.monotonic()))
            wait_ms = (
                None if due_mono == math.inf else max(0, math.ceil((due_mono - time.monotonic()) * 1000))
            )
            poller.register(
                self._fd, select.POLLIN | select.POLLOUT if sender.unsent_bytes else select.POLLIN
            )
            for fd, event in poller.poll(wait_ms):
                self._on_poll_event(fd, event)

    def _send_due(self, now: float) -> float:
        """Do and send everything due by `now`; return the next due time (monotonic seconds, may be inf)."""
        work_due = self._do_due(now)
        due = self._sender.due
        if due is not None and due <= now:
            self._sender.send()
            due = self._sender.due
        return min(math.inf if work_due is None else work_due, math.inf if due is None else due)

    def _on_poll_event(self, fd: int, event: int) -> None:
        if event & (select.POLLNVAL | select.POLLERR):
            self._on_lost()
        if fd == self._wake_fd:
            os.eventfd_read(fd)
            return
        if event & select.POLLOUT:
            self._sender.send()
        if event & (select.POLLIN | select.POLLHUP):
            self._read()

    def _read(self) -> None:
        """Read and carry out commands until the socket is empty."""
        while True:
            try:
                chunk = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                self._on_lost()
            if not chunk:
                self._on_lost()
            try:
                for frame in self._buffer.feed(chunk):
                    for encoded in framing.unpack(frame):
                        message = worker_protocol.to_executor_decoder.decode(encoded)
                        self._handlers[type(message)](message)
            except worker_protocol.UNDECODABLE:
                # Nothing after an invalid frame can be trusted.
                self._on_lost()
            if len(chunk) < READ_BYTES:
                return
