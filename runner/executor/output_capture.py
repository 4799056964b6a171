"""Effect: what a handler prints and logs becomes log events of the attempt that runs, in order."""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import io
import logging
import os
import sys
import termios
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from runner.executor.active_run import LOGGER
from runner.formats import strict_json
from runner.protocol import worker as worker_protocol

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]

    from runner.executor.active_run import ActiveRun
    from runner.executor.attempt_run import AttemptRun

#: A longer line is cut into pieces of this size.
LINE_MAX = 8 * 1024
#: What is kept of the text printed while no attempt is there (import, load).
EARLY_MAX = 64 * 1024

CurrentRun = Callable[[], "ActiveRun | None"]


class LineWriter(io.TextIOBase):
    """Stands for sys.stdout or sys.stderr; one event a line, each thread's lines kept apart."""

    def __init__(self, name: str, fd: int, emit: Callable[[str, str | None, str], None]) -> None:
        self._name = name
        self._fd = fd
        self._emit = emit
        #: What tells lines apart that are written piece by piece: threads, or attempts side by side.
        self.line_owner: Callable[[], Hashable] = threading.get_ident
        self._partial: dict[Hashable, list[str]] = {}
        #: For `sys.stdout.buffer.write(b"...")`.
        self.buffer = _ByteWriter(self)

    @property
    def name(self) -> str:
        """As other text files have one."""
        return f"<{self._name}>"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Always UTF-8."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What can't be encoded becomes a question mark."""
        return "replace"

    @property
    def line_buffering(self) -> bool:
        """A line goes out when it is complete."""
        return True

    def fileno(self) -> int:
        """The real descriptor, for children that are given it."""
        return self._fd

    def writable(self) -> bool:
        """As every output file."""
        return True

    def isatty(self) -> bool:
        """Never a terminal."""
        return False

    def reconfigure(self, **_: object) -> None:
        """Encoding and buffering are fixed; programs that set them expect no error."""

    def write(self, text: str) -> int:
        """Give out the lines that are complete now."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        owner = self.line_owner()
        pieces = self._partial.setdefault(owner, [])
        pieces.append(text)
        if "\n" in text or len(text) > LINE_MAX or len(pieces) > 256:
            self._partial[owner] = []
            *lines, rest = "".join(pieces).split("\n")
            for line in lines:
                self._emit_line(line)
            whole = len(rest) // LINE_MAX * LINE_MAX
            if whole:
                self._emit_line(rest[:whole])
            if whole < len(rest):
                self._partial.setdefault(owner, []).insert(0, rest[whole:])
        return len(text)

    def flush_lines(self) -> None:
        """Give out what has no line end yet; called at an attempt's end."""
        while self._partial:
            _, pieces = self._partial.popitem()
            self._emit_rest(pieces)

    def flush_owner(self, owner: Hashable) -> None:
        """Give out what has no line end yet of one of several."""
        self._emit_rest(self._partial.pop(owner, []))

    def _emit_rest(self, pieces: list[str]) -> None:
        rest = "".join(pieces)
        if rest:
            self._emit_line(rest)

    def _emit_line(self, line: str) -> None:
        # A progress bar redraws its line after each return: what it showed last is the line.
        line = line.rstrip("\r").rpartition("\r")[2]
        for at in range(0, max(1, len(line)), LINE_MAX):
            self._emit(self._name, None, line[at : at + LINE_MAX])


class _ByteWriter(io.RawIOBase):
    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._writer.fileno()

    def write(self, data: Buffer) -> int:
        view = memoryview(data)
        self._writer.write(bytes(view).decode("utf-8", "replace"))
        return view.nbytes


class LogEventHandler(logging.Handler):
    """Root handler: records of all loggers."""

    def __init__(self, emit: Callable[[str, str | None, str], None], current: CurrentRun) -> None:
        super().__init__()
        self._emit_event = emit
        self.current = current

    def emit(self, record: logging.LogRecord) -> None:
        """One record, one event, its traceback included."""
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        run = self.current()
        if run is not None and record.name == LOGGER:
            # A use of the context, also where a handler keeps `ctx.log` in a variable.
            run.touch()
        self._emit_event("logging", record.levelname.lower(), text)


class OutputCapture:
    """Installed once in an executor."""

    def __init__(self, current: CurrentRun) -> None:
        self._current = current
        self._early: deque[tuple[str, str | None, str]] | None = deque()
        self._early_size = 0
        self.stdout = LineWriter("stdout", 1, self._emit)
        self.stderr = LineWriter("stderr", 2, self._emit)
        self._handler = LogEventHandler(self._emit, current)
        # CDLL gives the GIL back during the call: a full pipe must not freeze the channel thread.
        self._fflush = ctypes.CDLL(None).fflush
        self._pipes = {fd: _file_identity(fd) for fd in (1, 2)}

    def install(self) -> None:
        """Take over sys.stdout, sys.stderr and logging."""
        sys.stdout = self.stdout
        sys.stderr = self.stderr
        root = logging.getLogger()
        root.addHandler(self._handler)
        root.setLevel(logging.INFO)
        logging.getLogger(LOGGER).setLevel(logging.DEBUG)

    def follow_runs(self, current_run: Callable[[], AttemptRun | None]) -> None:
        """From now on attempts run side by side, and this tells which of them prints."""
        self._current = self._handler.current = current_run
        self.stdout.line_owner = self.stderr.line_owner = lambda: _run_key(current_run())

    def restore_streams(self) -> None:
        """In a forked child: print straight into the pipes, which the worker reads."""
        sys.stdout = open(1, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.addHandler(logging.StreamHandler(sys.stderr))

    def emit_early(self, run: ActiveRun) -> None:
        """The first attempt gets what was printed before there was any."""
        early, self._early = self._early, None
        for stream, level, text in early or ():
            run.add_log(stream, level, text)

    def early_tail(self) -> list[str]:
        """The last of it, for the report of a failed load."""
        return [strict_json.replace_surrogates(text) for _, _, text in list(self._early or ())[-50:]]

    def flush_run(self, run: AttemptRun) -> None:
        """What one of several attempts printed is on its way when this returns."""
        self.stdout.flush_owner(run.key)
        self.stderr.flush_owner(run.key)

    def flush(self) -> None:
        """All that was printed is on its way when this returns."""
        self.stdout.flush_lines()
        self.stderr.flush_lines()
        for stream in (sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()  # type: ignore[union-attr]
        self._fflush(None)

    def write_markers(self, run: AttemptRun) -> bytes | None:
        """The `Marked` that must go before the attempt's `Ended`, if C code or a child has left bytes in a
        pipe that the worker has not read."""
        unread = [_unread_bytes(fd) for fd in (1, 2)]
        if not any(unread):
            return None
        marker = os.urandom(16).hex().encode()
        written = [
            bool(count) and self._write_marker(fd, marker) for fd, count in zip((1, 2), unread, strict=True)
        ]
        if not any(written):
            return None
        return worker_protocol.encode(
            worker_protocol.OutputMark(run.job_id, run.number, marker, written[0], written[1])
        )

    def _write_marker(self, fd: int, marker: bytes) -> bool:
        # The handler may have put a file of its own at the descriptor; that is not ours to write to.
        if self._pipes[fd] is None or _file_identity(fd) != self._pipes[fd]:
            return False
        try:
            return os.write(fd, marker) == len(marker)
        except OSError:
            return False

    def _emit(self, stream: str, level: str | None, text: str) -> None:
        run = self._current()
        if run is not None:
            run.add_log(stream, level, text)
        elif self._early is not None and self._early_size < EARLY_MAX:
            self._early_size += len(text) + 16
            self._early.append((stream, level, text))


def _run_key(run: AttemptRun | None) -> Hashable:
    return None if run is None else run.key


def _file_identity(fd: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _unread_bytes(fd: int) -> int:
    count = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.FIONREAD, count)
    except OSError:
        return 0
    return count[0]
