"""Effect: turns an executor's output pipes into log events; withholds `AttemptEnded` until they are read."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from runner.processes.child import WorkerConfig
from runner.protocol.worker import OutputMark
from runner.worker.processes.executor_process import READS_PER_TURN, ExecutorProcess
from runner.worker.processes.page_figures import PageFigures
from runner.worker.supervision import messages
from runner.worker.supervision.attempts import AssignedAttempt, AttemptKey, AttemptQueue
from runner.worker.supervision.output_stream import OutputStream

log = logging.getLogger(__name__)

#: Longest time, in seconds, for which an `AttemptEnded` waits for its marker.
MARKER_WAIT_S = 0.05
#: Bytes of output of one executor that the worker logs as its own.
OWN_LOG_MAX_BYTES = 64 * 1024


class OutputPipes:
    """Both output pipes of one executor; `send` gets reliable messages, in order for each attempt."""

    def __init__(
        self,
        process: ExecutorProcess,
        attempts: AttemptQueue,
        *,
        limits: WorkerConfig,
        send: Callable[[bytes], None],
        amend_ended: Callable[[AssignedAttempt, bytes], bytes],
    ) -> None:
        self._process, self._attempts = process, attempts
        self._log_max_bytes, self._events_max = limits.log_max_bytes, limits.events_max
        self._send, self._amend_ended = send, amend_ended
        self._streams = {"stdout": OutputStream("stdout"), "stderr": OutputStream("stderr")}
        #: Ended attempts whose `AttemptEnded` waits for output, each with its ordinal.
        self._waiting: deque[tuple[AssignedAttempt, int]] = deque()
        #: Children of ended attempts may write into the pipes, and the ended attempts for which the opposite
        #: still holds, because their output had not been read when that changed.
        self._are_children_left = False
        self._opposite_keys: frozenset[AttemptKey] = frozenset()
        self._own_log_bytes = 0

    @property
    def stderr_tail(self) -> str:
        """Return the last 4 KiB of descriptor 2."""
        return self._streams["stderr"].tail

    @property
    def dropped_bytes(self) -> int:
        """Return the number of bytes that belonged to no attempt."""
        return sum(stream.dropped_bytes for stream in self._streams.values())

    @property
    def next_release_at(self) -> float | None:
        """Return when the first withheld `AttemptEnded` is sent even without its marker.

        Monotonic seconds.
        """
        return self._waiting[0][0].release_at if self._waiting else None

    def read_available(self, name: str) -> None:
        """Read the bytes that a pipe ("stdout" or "stderr") contains now."""
        for _ in range(READS_PER_TURN):
            received = self._process.receive_output(name)
            if received is None:
                break
            self._route(self._streams[name], *received)
        if self._waiting:
            self.release_ended(time.monotonic())

    def expect_markers(self, entry: AssignedAttempt, mark: OutputMark) -> None:
        """Expect markers in the pipes in which the attempt left output; its `AttemptEnded` follows."""
        entry.markers = {
            name: mark.marker
            for name in ("stdout", "stderr")
            if getattr(mark, name) and name in self._process.output_fds
        }
        for name in list(entry.markers):
            self.read_available(name)

    def on_attempt_ended(self, entry: AssignedAttempt, message: bytes, now: float) -> None:
        """Take the executor's `AttemptEnded`; it is sent once all output of the attempt has been sent."""
        # The output of a batch belongs to all its attempts: send it completely before any of their ends.
        ordinal = self._attempts.ordinal_of(self._attempts.batch_of(entry)[-1])
        self._attempts.remove_ended(entry)
        if not self._waiting and not entry.markers and not any(s.is_pending for s in self._streams.values()):
            entry.is_end_sent = True
            self._send(self._amend_ended(entry, message))
            self._streams["stderr"].clear_tail()
            return
        entry.result = message
        entry.release_at = now + MARKER_WAIT_S
        self._waiting.append((entry, ordinal))
        self._attempts.withheld.append(entry.key)
        self.release_ended(now)

    def release_ended(self, now: float) -> None:
        """Send every `AttemptEnded` whose output is complete or that has waited long enough."""
        while self._waiting:
            entry, ordinal = self._waiting[0]
            for name, marker in list(entry.markers.items()):
                lines = self._streams[name].split_at_marker(marker)
                if lines is not None:
                    del entry.markers[name]
                    self._emit(entry, name, lines)
            if (
                entry.markers
                and now < entry.release_at
                and any(n in self._process.output_fds for n in entry.markers)
            ):
                return
            for name, stream in self._streams.items():
                self._emit(entry, name, stream.finish_attempt(ordinal))
                if name in entry.markers:
                    stream.ignore_marker(entry.markers[name])
            self._streams["stderr"].clear_tail()
            self._waiting.popleft()
            self._attempts.withheld.remove(entry.key)
            assert entry.result is not None
            entry.is_end_sent = True
            self._send(self._amend_ended(entry, entry.result))
        self._assign_deferred()

    def set_children_left(self, are_left: bool) -> None:
        """Record whether children of ended attempts may write into the pipes from now on.

        Then nothing shows who has written what, and the worker logs it as its own instead of an attempt's.
        """
        self._are_children_left = are_left
        self._opposite_keys = frozenset(entry.key for entry, _ in self._waiting)

    def close(self) -> None:
        """Send all withheld messages once the executor is dead and its pipes are read.

        The rest of the output is assigned to the attempt that ran last.
        """
        self.release_ended(float("inf"))
        if self._attempts.entries:
            owner = self._attempts.last_started(self._process.read_page()) or self._attempts.entries[0]
            for name, stream in self._streams.items():
                self._emit(owner, name, stream.feed_deferred() + stream.finish_attempt(0))

    def _route(self, stream: OutputStream, chunk: bytes, figures: PageFigures) -> None:
        """Assign a chunk to its attempt, defer it while that is uncertain, or drop it if there is none.

        `figures` are those of the shared page when the chunk was read.
        """
        stream.update_tail(chunk)
        if not self._waiting and not self._attempts.entries:
            stream.dropped_bytes += len(chunk)
            return
        if self._waiting or not self._is_owner_certain(figures):
            stream.defer(chunk, figures.started)
        else:
            self._emit(self._attempts.entries[0], stream.name, stream.feed(chunk))

    def _is_owner_certain(self, figures: PageFigures) -> bool:
        """Return whether bytes read with these figures belong to the first attempt that has not ended.

        With slots the owner is never certain, and the attempt that has run longest gets them.
        """
        if self._attempts.slots > 1:
            return True
        ordinal = self._attempts.ended_count + 1
        return figures.finished < ordinal and figures.started < ordinal + self._attempts.first_batch_size()

    def _assign_deferred(self) -> None:
        """Assign deferred bytes to their owner if it is certain now."""
        for name, stream in self._streams.items():
            if not self._attempts.entries:
                stream.drop_deferred()
            elif stream.is_pending and self._is_owner_certain(self._process.read_page()):
                self._emit(self._attempts.entries[0], name, stream.feed_deferred())

    def _emit(self, entry: AssignedAttempt, name: str, lines: list[str]) -> None:
        if lines and self._are_children_left != (entry.key in self._opposite_keys):
            self._log_as_own(name, lines)
        elif lines:
            for one in entry.batch or (entry,):
                if not one.is_end_sent:
                    self._emit_to(one, name, lines)

    def _log_as_own(self, name: str, lines: list[str]) -> None:
        """Log lines that belong to no attempt for certain, up to a limit; count the rest as dropped."""
        for text in lines:
            if self._own_log_bytes < OWN_LOG_MAX_BYTES:
                self._own_log_bytes += len(text) + 1
                log.info(
                    "executor %d, whose earlier jobs left processes behind, %s: %s",
                    self._process.pid,
                    name,
                    text,
                )
            else:
                self._streams[name].dropped_bytes += len(text) + 1

    def _emit_to(self, entry: AssignedAttempt, name: str, lines: list[str]) -> None:
        """Send lines as log events of an attempt, up to its limits in bytes and lines."""
        kept: list[str] = []
        for text in lines:
            if entry.log_bytes >= self._log_max_bytes or entry.log_lines >= self._events_max:
                break
            entry.log_bytes += len(text) + 1
            entry.log_lines += 1
            kept.append(text)
            if entry.log_bytes >= self._log_max_bytes:
                kept.append(f"[log limit of {self._log_max_bytes} bytes reached; dropping the rest]")
        if kept:
            self._send(messages.encode_log(entry, name, kept, time.time()))
