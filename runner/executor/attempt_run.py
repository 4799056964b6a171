"""Effect: one running attempt: its events, its files and its cancellation."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any

import msgspec

from runner.bounds import NAME_CHARS_MAX, PROGRESS_BYTES_MAX
from runner.executor.environment import ExecutorEnvironment
from runner.executor.result_errors import ResultTooLarge
from runner.executor.sender import AttemptStream
from runner.formats import strict_json
from runner.jobs.job import FileRecord
from runner.protocol import worker as worker_protocol

if TYPE_CHECKING:
    from pathlib import Path
    from weakref import ReferenceType

#: Shortest time between two progress events of an attempt that has sent few, in seconds; the first and the
#: last are always sent.
PROGRESS_S = 0.05
_json = msgspec.json.Encoder().encode


class AttemptRun(AttemptStream):
    """State of one attempt, shared by the main thread, the handler's own threads and the channel thread."""

    __slots__ = (
        "attempt",
        "bars",
        "batch_folder",
        "callbacks",
        "cancelled",
        "closed",
        "environment",
        "files",
        "has_own_progress",
        "interrupt",
        "pending_progress",
        "progress_due",
        "raise_requested",
        "reason",
        "started_at",
        "tmpdir",
    )

    def __init__(self, attempt: worker_protocol.AttemptSpec, environment: ExecutorEnvironment) -> None:
        config = environment.config
        super().__init__(attempt.job_id, attempt.attempt, (config.log_max_bytes, config.events_max))
        self.attempt = attempt
        self.environment = environment
        #: UTC epoch seconds; 0.0 before the start.
        self.started_at = 0.0
        #: First rung of the kill ladder: the attempt was asked to stop.
        self.cancelled = False
        #: Second rung: JobCancelled must be raised in the main thread.
        self.raise_requested = False
        self.reason = ""
        #: User code has returned; a context that is still referenced no longer works.
        self.closed = False
        #: Interrupts the coroutine of the attempt, if it runs one.
        self.interrupt: Callable[[], None] | None = None
        #: Functions of `on_cancel`; None before the first.
        self.callbacks: list[Callable[[], object]] | None = None
        #: Earliest time of the next progress event; monotonic seconds.
        self.progress_due = 0.0
        #: The latest progress that was not sent yet, as JSON text: one entry at most. None before the first.
        self.pending_progress: deque[bytes] | None = None
        #: The handler has called `ctx.progress`, so bars of tqdm no longer count.
        self.has_own_progress = False
        #: Open bars of tqdm, the outermost first.
        self.bars: list[ReferenceType[Any]] = []
        #: Saved files by name.
        self.files: dict[str, FileRecord] | None = None
        self.tmpdir: Path | None = None
        #: Returns the private folder of the attempt's batch, if the attempt is in one.
        self.batch_folder: Callable[[], Path | None] | None = None

    @property
    def items(self) -> Sequence[AttemptRun]:
        """Return this attempt alone; see `BatchRun`."""
        return (self,)

    @property
    def members(self) -> list[AttemptRun]:
        """Return this attempt alone; see `BatchRun`."""
        return [self]

    def file_owner(self) -> AttemptRun:
        """Return this attempt, which owns its files."""
        return self

    def find(self, key: tuple[str, int]) -> AttemptRun | None:
        """Return this attempt if the key is its own."""
        return self if key == (self.job_id, self.number) else None

    @property
    def key(self) -> tuple[str, int]:
        """Return the job id and attempt number, which identify the attempt everywhere."""
        return (self.job_id, self.number)

    def touch(self) -> None:
        """Record that the handler is alive."""
        self.environment.page.touch()

    def require_open(self) -> None:
        """Refuse further use after the end of the attempt.

        Raises:
            RuntimeError: the attempt has ended.
        """
        if self.closed:
            raise RuntimeError(f"attempt {self.number} of job {self.job_id} has ended; its context is dead")

    def add_log(self, stream: str, level: str | None, text: str) -> None:
        """Add a log event; drop it once the attempt has ended or reached its limit of log text.

        `stream`: "stdout", "stderr" or "logging"; `level`: that of a log record in lower case, else None.
        """
        if self.is_log_full or self.is_ended:
            return
        fields = {"stream": stream, "level": level, "text": text}
        try:
            data = _json(fields)
        except UnicodeEncodeError:
            data = _json(
                {key: value and strict_json.replace_surrogates(value) for key, value in fields.items()}
            )
        self.environment.sender.add_event(self, "log", data)
        if stream == "stderr":
            # Send at once, as standard error is unbuffered: these may be the last lines before a crash.
            self.environment.sender.send()

    def add_output(self, data: bytes) -> None:
        """Add an output event with the JSON text of a chunk.

        Raises:
            ResultTooLarge: the attempt has sent as many events as it may.
        """
        self._add_event("output", b'{"chunk":%b}' % data)

    def add_metric(self, name: str, value: float) -> None:
        """Add a metric event.

        Raises:
            ValueError: an invalid name, or a value that is not a finite number.
            ResultTooLarge: the attempt has sent as many events as it may.
        """
        if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS_MAX:
            raise ValueError(f"a metric's name is a text of 1 to {NAME_CHARS_MAX} characters")
        data = _json({"name": strict_json.replace_surrogates(name), "value": _check_number("value", value)})
        self._add_event("metric", data)

    def add_progress(self, done: float, total: float | None, message: str | None, details: Any) -> None:
        """Send a progress event if the last one is at least 50 ms old, else keep it until one is due.

        `total`: value of `done` at which the work is complete (None: unknown); `details`: JSON values.

        Raises:
            ValueError: a value that is not a finite number, or more than 64 KiB.
            ResultTooLarge: the attempt has sent as many events as it may.
        """
        self.has_own_progress = True
        self._add_progress(done, total, message, details)

    def add_bar_progress(self, done: float, total: float | None, message: str | None) -> None:
        """Send the progress that a bar of tqdm shows, unless the handler calls `ctx.progress`."""
        self.touch()
        if not self.has_own_progress:
            self._add_progress(done, total, message, {})

    def _add_progress(self, done: float, total: float | None, message: str | None, details: Any) -> None:
        data = _encode_progress(done, total, message, details)
        pending = self.pending_progress
        if pending is None:
            pending = self.pending_progress = deque(maxlen=1)
        now = time.monotonic()
        if now >= self.progress_due:
            pending.clear()
            self.progress_due = now + progress_interval_s(self.events, self.limits[1])
            self._add_event("progress", data)
        else:
            pending.append(data)
            self.environment.sender.wake_before(self.progress_due)

    def flush_progress(self, now: float | None) -> None:
        """Send pending progress if it is due by `now` (monotonic seconds; None: in any case).

        Called by the main thread and the channel thread.
        """
        pending = self.pending_progress
        if not pending or (now is not None and now < self.progress_due):
            return
        # Take and queue the progress in one step: else the end of the attempt could overtake it.
        with self.environment.progress_lock:
            if pending:
                self.progress_due = time.monotonic() + progress_interval_s(self.events, self.limits[1])
                self.environment.sender.add_event(self, "progress", pending.popleft(), wait=False)

    def on_cancel(self, function: Callable[[], object]) -> None:
        """Call the function in its own thread when the attempt is asked to stop, or now if it already was.

        Raises:
            TypeError: the value can't be called.
        """
        if not callable(function):
            raise TypeError(f"on_cancel needs a function, not {function!r}")
        if self.callbacks is None:
            self.callbacks = []
        self.callbacks.append(function)
        # The request may have come between the check above and the append.
        if self.cancelled:
            self._start_callbacks()

    def request_cancel(self, reason: str) -> None:
        """Ask the attempt to stop (first rung); called by the channel thread.

        Interrupts its coroutine, if one runs, and starts the functions of `on_cancel`.
        """
        self.reason = reason
        self.cancelled = True
        interrupt = self.interrupt
        if interrupt is not None:
            interrupt()
        self._start_callbacks()

    def close(self) -> None:
        """Disable the context once user code has returned: send pending events, remove the private folder."""
        self.closed = True
        if self.pending_progress is not None:
            with self.environment.progress_lock:
                # Progress that the channel thread had taken is queued by now.
                pass
            self.flush_progress(None)
        self.callbacks = None
        self.interrupt = None
        if self.tmpdir is not None:
            from runner.executor.folder_removal import remove_folder

            remove_folder(self.tmpdir)
            self.tmpdir = None

    def complete_ended(self, ended: worker_protocol.AttemptEnded, *, executor_closing: bool) -> None:
        """Add the files that were saved; replace the outcome if the attempt was asked to stop.

        A cancelled attempt has no output, even if its handler returned one, and is not retried.
        `executor_closing`: this process exits after the message.
        """
        if self.cancelled:
            ended.code, ended.message = "cancelled", self.reason or "cancelled"
            ended.retryable, ended.output, ended.retry_at = False, None, None
            ended.is_blame_unknown = False
        if ended.code is None or self.files:
            ended.files = self.file_records()
        ended.executor_closing = executor_closing

    def file_records(self) -> list[FileRecord]:
        """Return the files saved so far."""
        return list(self.files.values()) if self.files else []

    def _add_event(self, kind: str, data: bytes) -> None:
        """Add an event other than a log event; raises ResultTooLarge once one was dropped."""
        self.environment.sender.add_event(self, kind, data)
        if self.is_over_limit:
            raise ResultTooLarge(self.over_limit_message)

    def _start_callbacks(self) -> None:
        callbacks, self.callbacks = self.callbacks, []
        if callbacks:
            run_callbacks(callbacks, partial(self.add_log, "logging", "error"))


def progress_interval_s(events: int, events_max: int) -> float:
    """Return the shortest time between two progress events: longer, the more events the attempt has sent.

    It doubles with every sixteenth of the bound on events, so that progress alone does not reach the bound:
    at 20 events a second that would take 83 minutes, this way months.
    """
    return float(PROGRESS_S * 2 ** (16 * events // max(1, events_max)))


def run_callbacks(callbacks: list[Callable[[], object]], report: Callable[[str], None]) -> None:
    """Call all functions in a new thread: one that hangs must not delay the next rung of the kill ladder.

    `report` gets one line for each function that raises.
    """

    def call() -> None:
        for function in callbacks:
            try:
                function()
            except Exception as error:
                report(f"on_cancel: {type(error).__name__}: {error}")

    threading.Thread(target=call, name="runner-on-cancel", daemon=True).start()


def _check_number(name: str, value: object) -> int | float:
    """Return the number if JSON can carry it.

    Raises:
        ValueError: the value is not a finite number of at most 64 bits.
    """
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, (bool, str, bytes)):
        raise ValueError(f"{name} must be a number, not {value!r}")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a number, not {value!r}") from None
    if not isfinite(number):
        raise ValueError(f"{name} must be finite, not {number!r}")
    return number


def _encode_progress(done: float, total: float | None, message: str | None, details: Any) -> bytes:
    """Return the JSON text of a progress event; its `fraction` is `done / total`, from 0 to 1.

    Raises:
        ValueError: a number that is not finite, details that are not JSON, or more than 64 KiB.
    """
    done = _check_number("done", done)
    fraction = None
    if total is not None:
        total = _check_number("total", total)
        fraction = min(1.0, max(0.0, done / total)) if total > 0 else 1.0
    fields = {
        "done": done,
        "total": total,
        "fraction": fraction,
        "message": None if message is None else strict_json.replace_surrogates(str(message)),
        "details": details,
    }
    data = strict_json.encode(fields) if details else _json(fields)
    if len(data) > PROGRESS_BYTES_MAX:
        raise ValueError(f"progress of {len(data)} bytes; message and details may have {PROGRESS_BYTES_MAX}")
    return data
