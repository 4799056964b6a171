"""Effect: turns a handler's printed text and log records into log events of the running attempt, in order."""

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
from runner.executor.left_children import LeftChildren
from runner.executor.left_threads import LeftThreads
from runner.formats import strict_json
from runner.protocol import worker as worker_protocol

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]

    from runner.executor.active_run import ActiveRun
    from runner.executor.attempt_run import AttemptRun

#: Most characters of a log line; a longer one is cut into pieces of this size.
LINE_MAX = 8 * 1024
#: Bound on the characters kept that are printed while no attempt runs (import, load); the rest is dropped.
EARLY_MAX = 64 * 1024

#: Returns the run that output made now belongs to; None: no attempt runs.
CurrentRun = Callable[[], "ActiveRun | None"]


class LineWriter(io.TextIOBase):
    """Replaces sys.stdout or sys.stderr and makes one log event of each line.

    Partial lines are kept apart by `line_owner`. `emit` gets the stream's name, no level and the line.
    """

    def __init__(self, name: str, fd: int, emit: Callable[[str, str | None, str], None]) -> None:
        self._name = name
        self._fd = fd
        self._emit = emit
        #: Tells the owners of partial lines apart: threads, or concurrent attempts.
        self.line_owner: Callable[[], Hashable] = threading.get_ident
        #: Takes the text of a caller whose output belongs to no run; returns False for any other caller.
        self.drop_stray: Callable[[str], bool] = lambda text: False
        #: Pieces of the unfinished line of each owner.
        self._partial: dict[Hashable, list[str]] = {}
        #: For `sys.stdout.buffer.write(b"...")`.
        self.buffer = _ByteWriter(self)

    @property
    def name(self) -> str:
        """Return a name, as other text files do."""
        return f"<{self._name}>"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return UTF-8, always."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Return the error mode: characters that can't be encoded become a question mark."""
        return "replace"

    @property
    def line_buffering(self) -> bool:
        """Return True: each line is emitted when it is complete."""
        return True

    def fileno(self) -> int:
        """Return the real descriptor, for children that inherit it."""
        return self._fd

    def writable(self) -> bool:
        """Return True, as every output file does."""
        return True

    def isatty(self) -> bool:
        """Return False: this is never a terminal."""
        return False

    def reconfigure(self, **_: object) -> None:
        """Do nothing: encoding and buffering are fixed, but programs that set them expect no error."""

    def write(self, text: str) -> int:
        """Emit the lines that are complete now; return the number of characters, as other text files do."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self.drop_stray(text):
            return len(text)
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
        """Emit the unfinished lines of all owners; called at an attempt's end."""
        while self._partial:
            _, pieces = self._partial.popitem()
            self._emit_rest(pieces)

    def flush_owner(self, owner: Hashable) -> None:
        """Emit the unfinished line of one owner."""
        self._emit_rest(self._partial.pop(owner, []))

    def _emit_rest(self, pieces: list[str]) -> None:
        rest = "".join(pieces)
        if rest:
            self._emit_line(rest)

    def _emit_line(self, line: str) -> None:
        # A progress bar redraws its line after each return: keep only the last state.
        line = line.rstrip("\r").rpartition("\r")[2]
        for at in range(0, max(1, len(line)), LINE_MAX):
            self._emit(self._name, None, line[at : at + LINE_MAX])


class _ByteWriter(io.RawIOBase):
    """Passes bytes on as UTF-8 text; invalid bytes become replacement characters."""

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
    """Handler of the root logger: gets the records of all loggers."""

    def __init__(self, emit: Callable[[str, str | None, str], None], current: CurrentRun) -> None:
        super().__init__()
        self._emit_event = emit
        self.current = current

    def emit(self, record: logging.LogRecord) -> None:
        """Make one event of one record, its traceback included."""
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        run = self.current()
        if run is not None and record.name == LOGGER:
            # Logging counts as a use of the context, even if the handler keeps `ctx.log` in a variable.
            run.touch()
        self._emit_event("logging", record.levelname.lower(), text)


class OutputCapture:
    """Attributes everything that user code prints or logs to a run; installed once in an executor.

    Text that Python writes is captured in the process. Bytes that C code and children write go into the pipes
    of standard output and error, which the worker reads.
    """

    def __init__(self) -> None:
        self._current: CurrentRun = lambda: None
        self._is_concurrent = False
        #: (stream, level, text) of output before the first run; None from the first run on.
        self._early: deque[tuple[str, str | None, str]] | None = deque()
        self._early_size = 0
        self.stdout = LineWriter("stdout", 1, self._emit)
        self.stderr = LineWriter("stderr", 2, self._emit)
        self.stdout.drop_stray = self.stderr.drop_stray = self._drop_stray
        self._left_threads = LeftThreads()
        self._stray_lines = 0
        self._handler = LogEventHandler(self._emit_record, self._current)
        # CDLL releases the GIL during the call: a full pipe must not block the channel thread.
        self._fflush = ctypes.CDLL(None).fflush
        #: Device and inode of the pipes, to recognise a file that the handler opened in their place.
        self._pipes = {fd: _file_identity(fd) for fd in (1, 2)}
        self._left_children = LeftChildren([pipe for pipe in self._pipes.values() if pipe is not None])
        #: Whether the ended runs have left children at the pipes; None if that is as at the last end.
        self._are_children_left: bool | None = None

    def install(self) -> None:
        """Replace sys.stdout and sys.stderr; capture log records from INFO on, of `ctx.log` from DEBUG on."""
        sys.stdout = self.stdout
        sys.stderr = self.stderr
        root = logging.getLogger()
        root.addHandler(self._handler)
        root.setLevel(logging.INFO)
        logging.getLogger(LOGGER).setLevel(logging.DEBUG)

    def follow_runs(self, current_run: CurrentRun, *, is_concurrent: bool = False) -> None:
        """Attribute output to the run that `current_run` returns when the output is made.

        `is_concurrent`: partial lines are kept apart by run, not by thread.
        """
        self._current = self._handler.current = current_run
        self._is_concurrent = is_concurrent
        self.stdout.line_owner = self.stderr.line_owner = (
            (lambda: _run_key(current_run())) if is_concurrent else threading.get_ident
        )

    def current_run(self) -> ActiveRun | None:
        """Return the run that output made now belongs to; None: no attempt runs."""
        return self._current()

    def restore_streams(self) -> None:
        """Print straight into the pipes, which the worker reads; called in a forked child."""
        sys.stdout = open(1, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.addHandler(logging.StreamHandler(sys.stderr))

    def emit_early(self, run: ActiveRun) -> None:
        """Emit text that was printed before any attempt as log events of the first one."""
        self._left_threads.on_run_started()
        self._left_children.on_run_started()
        early, self._early = self._early, None
        for stream, level, text in early or ():
            run.add_log(stream, level, text)

    def early_tail(self) -> list[str]:
        """Return the last 50 lines printed before the first run, for the report of a failed load."""
        return [strict_json.replace_surrogates(text) for _, _, text in list(self._early or ())[-50:]]

    def flush_run(self, run: ActiveRun) -> bytes | None:
        """Queue everything that an ending run has printed; return its `OutputMark`, see `write_markers`.

        Always None where attempts run concurrently: bytes in a pipe can't be assigned to one of them.
        """
        if self._is_concurrent:
            self.stdout.flush_owner(_run_key(run))
            self.stderr.flush_owner(_run_key(run))
            return None
        self.flush()
        self._left_threads.on_run_ended()
        self._are_children_left = self._left_children.on_run_ended()
        return self.write_markers(run.items[0])

    def take_leftovers(self) -> worker_protocol.Leftovers | None:
        """Return what ended runs have left behind, if that is worth a message."""
        if not self._stray_lines and self._are_children_left is None:
            return None
        leftovers = worker_protocol.Leftovers(self._stray_lines, self._are_children_left)
        self._stray_lines, self._are_children_left = 0, None
        return leftovers

    def flush(self) -> None:
        """Queue everything that was printed, and write the buffers of Python and C to the pipes."""
        self.stdout.flush_lines()
        self.stderr.flush_lines()
        for stream in (sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()  # type: ignore[union-attr]
        self._fflush(None)

    def write_markers(self, run: AttemptRun) -> bytes | None:
        """Return the `OutputMark` to send before the attempt's `AttemptEnded`.

        None unless C code or a child has left bytes in a pipe that the worker has not read.
        """
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
        """Write the marker into a pipe; return whether all of it was written."""
        # The handler may have opened a file of its own at this descriptor; never write into that.
        if self._pipes[fd] is None or _file_identity(fd) != self._pipes[fd]:
            return False
        try:
            return os.write(fd, marker) == len(marker)
        except OSError:
            return False

    def _drop_stray(self, text: str) -> bool:
        """Count the lines of a thread that an ended attempt has left at work; return False for all others."""
        if not self._left_threads.is_current():
            return False
        self._stray_lines += text.count("\n")
        return True

    def _emit_record(self, stream: str, level: str | None, text: str) -> None:
        if not self._drop_stray(text + "\n"):
            self._emit(stream, level, text)

    def _emit(self, stream: str, level: str | None, text: str) -> None:
        run = self._current()
        if run is not None:
            run.add_log(stream, level, text)
        elif self._early is not None and self._early_size < EARLY_MAX:
            self._early_size += len(text) + 16
            self._early.append((stream, level, text))


def _run_key(run: ActiveRun | None) -> Hashable:
    return None if run is None else (run.job_id, run.number)


def _file_identity(fd: int) -> tuple[int, int] | None:
    """Return device and inode of an open file; None if the descriptor is closed."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _unread_bytes(fd: int) -> int:
    """Return how many bytes lie in a pipe; 0 if the descriptor is no pipe."""
    count = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.FIONREAD, count)
    except OSError:
        return 0
    return count[0]
