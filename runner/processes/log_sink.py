"""Effect: writes the lines of a log without ever making the process wait for their reader."""

from __future__ import annotations

import os
import select
import stat
import threading
from collections import deque
from collections.abc import Callable

#: Bytes that wait for a slow reader; lines beyond them are dropped and counted.
WAITING_MAX_BYTES = 1024 * 1024
#: Time at the end of the process for the last lines.
FLUSH_TIMEOUT_S = 0.2


class LogSink:
    """A bounded queue of lines before a descriptor, which a thread of its own writes.

    A pipe that nobody reads and a terminal that is held by Ctrl-S block each write. Only the thread blocks
    then. It starts with the first line: a process must not fork with a thread. A regular file never blocks
    and is written at once. The descriptor is not made non-blocking, as other processes share it.
    """

    def __init__(
        self,
        fd: int,
        describe_dropped: Callable[[int], bytes],
        *,
        waiting_max_bytes: int = WAITING_MAX_BYTES,
    ) -> None:
        """Write to `fd`; `describe_dropped` returns the line that tells how many lines were dropped."""
        self._fd = fd
        self._describe_dropped = describe_dropped
        self._waiting_max_bytes = waiting_max_bytes
        self._is_direct = stat.S_ISREG(os.fstat(fd).st_mode)
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        #: Number of lines dropped since the last one that tells of them.
        self.dropped_count = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, line: bytes) -> None:
        """Write a line, or queue it, or drop it if too many wait; never blocks and never raises."""
        if self._is_direct:
            _write_all(self._fd, line)
            return
        with self._changed:
            if self._waiting_bytes + len(line) > self._waiting_max_bytes:
                self.dropped_count += 1
                return
            self._add_dropped()
            self._add(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        """Wait until all lines are written; return False if some are not after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines, timeout_s)

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._waiting_bytes += len(line)

    def _add_dropped(self) -> None:
        if self.dropped_count:
            self._add(self._describe_dropped(self.dropped_count))
            self.dropped_count = 0

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines[0]
            _write_all(self._fd, line)
            with self._changed:
                self._lines.popleft()
                self._waiting_bytes -= len(line)
                if not self._lines:
                    self._add_dropped()
                self._changed.notify_all()


def _write_all(fd: int, line: bytes) -> None:
    """Write a line; without a reader at all, or on a full disk, nothing can be done about the rest."""
    rest = memoryview(line)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            # Another process has made the shared descriptor non-blocking.
            select.select([], [fd], [])
        except OSError:
            return
