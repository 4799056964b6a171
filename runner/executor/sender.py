"""Effect: sends all messages of an executor, from any thread, in order, over one non-blocking socket.

Producers append to a deque, which needs no lock, and the thread that gets the lock sends for all. So a signal
handler or finaliser that prints in the middle of a send can't deadlock with itself, and a suspended thread
with nothing half-done delays no other.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import NoReturn

import msgspec

from runner.executor.cancel_signal import CancelSignal
from runner.executor.shared_page import SharedPage
from runner.protocol import framing
from runner.protocol import worker as worker_protocol

#: Unsent bytes above which a producer waits for the worker to read.
HIGH_BYTES = 1024 * 1024
#: Frames passed to the kernel in one call.
PARTS_MAX = 64
#: Bytes of events at which an `AttemptEvents` message is closed.
EVENTS_BYTES = 256 * 1024
#: Events that follow a send within this many seconds are gathered into one message.
GATHER_S = 0.002
#: Longest wait of gathered messages while nothing more is sent; seconds.
DEFER_S = 0.005


class AttemptStream:
    """The attempt that a message belongs to, with the counts and limits of its messages and events."""

    __slots__ = (
        "events",
        "is_ended",
        "is_limit_reported",
        "is_over_limit",
        "job_id",
        "limits",
        "log_bytes",
        "number",
        "seq",
    )

    def __init__(self, job_id: str, number: int, limits: tuple[int, int]) -> None:
        self.job_id = job_id
        self.number = number
        #: Number of the last message, from 1.
        self.seq = 0
        #: Its `AttemptEnded` was sent; nothing may follow.
        self.is_ended = False
        #: (log_max_bytes, events_max)
        self.limits = limits
        self.log_bytes = 0
        self.events = 0
        self.is_limit_reported = False
        #: An event other than a log event was dropped, so the attempt can't succeed.
        self.is_over_limit = False

    def admit(self, kind: str, size: int) -> bool:
        """Count an event of `size` bytes; return False if the attempt's limits are used up."""
        log_max, events_max = self.limits
        if self.events >= events_max or (kind == "log" and self.log_bytes >= log_max):
            self.is_over_limit |= kind != "log"  # guard: events-bound
            return False
        self.events += 1
        if kind == "log":
            self.log_bytes += size
        return True

    @property
    def over_limit_message(self) -> str:
        """Return the message of an attempt that fails because it sent too many events."""
        return f"more than {self.limits[1]} events in one attempt; send fewer or larger chunks"

    def fail_over_limit(self, ended: worker_protocol.AttemptEnded) -> None:
        """Make the end of an attempt whose events were dropped a failure, unless it is one already."""
        if self.is_over_limit and ended.code is None:
            ended.code, ended.message = "result_too_large", self.over_limit_message
            ended.retryable, ended.output = False, None

    @property
    def is_log_full(self) -> bool:
        """Return True once no more log text is taken and the notice about it was sent."""
        return self.is_limit_reported and self.log_bytes >= self.limits[0]

    def encode_limit_notice(self) -> bytes:
        """Return the log event that reports the reached limit, and record that it was reported."""
        log_max, events_max = self.limits
        reached = f"{events_max} events" if self.events >= events_max else f"{log_max} bytes of log"
        self.is_limit_reported = True
        text = f"the limit of {reached} for one attempt is reached; the rest is dropped"
        return msgspec.json.encode({"stream": "logging", "level": "warning", "text": text})


#: An attempt's stream, or None for any other message; the kind of event, when it was made, and its content.
Item = tuple[AttemptStream | None, str, float, bytes | worker_protocol.AttemptEnded]


class Sender:
    """The executor's single way to its worker; any thread may send.

    Sending never blocks; only a producer of events waits while more than 1 MiB is unsent. The channel thread
    sends messages at `due` that no other thread has sent by then.
    """

    def __init__(
        self,
        fd: int,
        wake_fd: int,
        page: SharedPage,
        cancel_signal: CancelSignal,
        on_lost: Callable[[], NoReturn],
    ) -> None:
        #: Non-blocking socket to the worker; `wake_fd` is an eventfd that the channel thread polls.
        self._fd = fd
        self._page = page
        self._wake_fd = wake_fd
        self._cancel_signal = cancel_signal
        self._on_lost = on_lost
        #: Messages without a frame, and frames not yet written.
        self._items: deque[Item] = deque()
        self._unsent: deque[memoryview] = deque()
        self._lock = threading.Lock()
        #: Identifier of the thread that holds the lock; 0: none.
        self._sending_thread = 0
        #: Monotonic time of the last complete write.
        self._sent_mono = 0.0
        self.unsent_bytes = 0
        #: Monotonic time at which pending messages must be sent; None: none are pending.
        self.due: float | None = None
        #: Monotonic time at which the channel thread wakes by itself.
        self.wakes_at = 0.0
        #: Set in a forked child, whose parent owns the channel.
        self.is_muted = False

    def add_event(self, stream: AttemptStream, kind: str, data: bytes, *, wait: bool = True) -> None:
        """Add an event with the JSON text of its fields; `wait`: block while the worker does not read."""
        with self._cancel_signal:
            self._items.append((stream, kind, time.time(), data))
            now = time.monotonic()
            if now - self._sent_mono >= GATHER_S:
                self.send()
            else:
                self.send_by(self._sent_mono + DEFER_S)
        if wait and self.unsent_bytes > HIGH_BYTES:
            self._wait_for_space(stream)

    def send_message(self, encoded: bytes) -> None:
        """Send an encoded message that belongs to no attempt's stream, without a wait for others."""
        with self._cancel_signal:
            self._items.append((None, "", 0.0, encoded))
            self.send()

    def add_ended(
        self,
        streams: Iterable[AttemptStream],
        endings: Iterable[worker_protocol.AttemptEnded],
        output_mark: bytes | None,
        *,
        may_wait: bool,
    ) -> None:
        """Add the last message of each attempt of a run, after the `OutputMark` of the run.

        The messages get their `seq` here. With `may_wait` they may wait, 5 ms at most, for the results of the
        attempts behind them. They wait in the shared page: a result is not lost with the process, whatever
        the next attempt does to the process.
        """
        with self._cancel_signal:
            if output_mark is not None:
                self._items.append((None, "", 0.0, output_mark))
            for stream, ended in zip(streams, endings, strict=True):
                self._items.append((stream, "ended", 0.0, ended))
            self._send_or_defer(may_wait)

    def _send_or_defer(self, may_wait: bool) -> None:
        now = time.monotonic()
        if may_wait and now - self._sent_mono < GATHER_S and self._hold_in_page():
            self.send_by(now + DEFER_S)
        else:
            self.send()

    def _hold_in_page(self) -> bool:
        """Frame the pending messages and keep them in the page; return False if they must be sent instead."""
        if not self._lock.acquire(False):
            # The thread that sends now sends these as well.
            return False
        self._sending_thread = threading.get_ident()
        try:
            framed = len(self._unsent)
            self._build_frames()
            return all(self._page.hold_frame(part) for part in islice(self._unsent, framed, None))
        finally:
            self._sending_thread = 0
            self._lock.release()

    def send_by(self, moment: float) -> None:
        """Let pending messages wait until this monotonic time."""
        due = self.due
        if due is None or moment < due:
            self.due = moment
        self.wake_before(moment)

    def wake_before(self, moment: float) -> None:
        """Make sure that the channel thread wakes by then."""
        # The channel thread publishes `wakes_at` before it checks what is due; this thread sets `due` before
        # it reads `wakes_at`: one of them always sees the other's value.
        if moment < self.wakes_at:
            self.wake()

    def wake(self) -> None:
        """Have the channel thread check everything now."""
        if self.is_muted:
            return
        try:
            os.eventfd_write(self._wake_fd, 1)
        except BlockingIOError:
            return
        except OSError:
            self._on_lost()

    def send(self) -> None:
        """Send all pending messages as far as the socket accepts them. Never blocks."""
        if self.is_muted:
            self._items.clear()
            return
        with self._cancel_signal:
            while self._items or self._unsent:
                # Not acquired: the holder, which may be this very thread further down its stack, sends these.
                if not self._lock.acquire(False):
                    return
                self._sending_thread = threading.get_ident()
                try:
                    self.due = None
                    self._build_frames()
                    blocked = not self._write()
                finally:
                    self._sending_thread = 0
                    self._lock.release()
                if blocked:
                    # The channel thread continues when the socket is writable.
                    self.wake()
                    return

    def flush_until(self, within_s: float) -> None:
        """Block until everything is written, `within_s` seconds at most."""
        end = time.monotonic() + within_s
        self.send()
        while (self._unsent or self._items) and time.monotonic() < end:
            _wait_writable(self._fd)
            self.send()

    def mute(self) -> None:
        """Drop everything unsent and send nothing more; called in a forked child.

        The lock is replaced, as a thread of the parent may have held it at the fork.
        """
        self.is_muted = True
        self._lock = threading.Lock()
        self._items.clear()
        self._unsent.clear()
        self.unsent_bytes = 0

    def _wait_for_space(self, stream: AttemptStream) -> None:
        """Wait for the worker to read, interruptibly: a cancel must reach a handler that waits here."""
        if self._sending_thread == threading.get_ident():
            return
        while self.unsent_bytes > HIGH_BYTES and not stream.is_ended and not self.is_muted:
            _wait_writable(self._fd)
            self.send()

    def _build_frames(self) -> None:
        """Turn pending messages into frames, each closed at 1 MiB; number the messages of attempts.

        Events beyond the limits of their attempt, or after its end, are dropped.
        """
        messages: list[bytes] = []
        size = 0
        stream: AttemptStream | None = None
        events: list[tuple[str, float, bytes]] = []
        events_size = 0

        def close_events() -> None:
            nonlocal events, events_size, size
            if events and stream is not None:
                stream.seq += 1
                message = worker_protocol.AttemptEvents(stream.job_id, stream.number, stream.seq, events)
                messages.append(worker_protocol.encode(message))
                size += events_size
                events, events_size = [], 0

        while True:
            try:
                owner, kind, at, payload = self._items.popleft()
            except IndexError:
                break
            if owner is not stream or not kind or kind == "ended" or events_size >= EVENTS_BYTES:
                close_events()
                stream = owner
            if isinstance(payload, worker_protocol.AttemptEnded):
                assert owner is not None
                owner.seq += 1
                payload.seq = owner.seq
                owner.fail_over_limit(payload)
                owner.is_ended = True
                messages.append(worker_protocol.encode(payload))
                size += len(messages[-1])
            elif owner is None:
                messages.append(payload)
                size += len(payload)
            elif not owner.is_ended:
                if owner.admit(kind, len(payload)):
                    events.append((kind, at, payload))
                    events_size += len(payload)
                elif not owner.is_limit_reported:
                    events.append(("log", at, owner.encode_limit_notice()))
            if size >= HIGH_BYTES:
                self._append_frame(messages)
                messages, size = [], 0
        close_events()
        self._append_frame(messages)

    def _append_frame(self, messages: list[bytes]) -> None:
        if messages:
            data = framing.with_length(framing.pack(messages))
            self._unsent.append(memoryview(data))
            self.unsent_bytes += len(data)

    def _write(self) -> bool:
        """Write frames to the socket; return True if all were written."""
        while self._unsent:
            try:
                count = os.writev(self._fd, list(islice(self._unsent, PARTS_MAX)))
            except BlockingIOError:
                return False
            except OSError:
                self._on_lost()
            self.unsent_bytes -= count
            while count:
                part = self._unsent.popleft()
                if count < len(part):
                    self._unsent.appendleft(part[count:])
                    break
                count -= len(part)
        self._page.release_frames()
        self._sent_mono = time.monotonic()
        return True


def _wait_writable(fd: int) -> None:
    """Wait until the socket takes more bytes, 50 ms at most."""
    waiter = select.poll()
    waiter.register(fd, select.POLLOUT)
    waiter.poll(50)
