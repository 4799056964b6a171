"""Effect: shows a job's events on stderr as they arrive: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from runner.cli.formatting import format_progress, one_line
from runner.client.events import (
    DoneEvent,
    GapEvent,
    JobEvent,
    LogEvent,
    OutputEvent,
    ProgressEvent,
    SnapshotEvent,
    StatusEvent,
    WaitingEvent,
)
from runner.formats.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Shortest interval between plain progress lines; the last one is always printed.
PROGRESS_EVERY_S = 1.0


class Display(Protocol):
    """Shows a job's events until the job has ended; used as a context manager."""

    def show(self, event: JobEvent) -> None:
        """Show one event."""

    def has_shown(self, output: object) -> bool:
        """Return whether a person has read this output already, as streamed text."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_display(name: str, stream: TextIO = sys.stderr) -> Display:
    """Return the display that suits the stream: a bar for a terminal, plain lines elsewhere.

    `name` labels the bar.
    """
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return BarDisplay(name, stream)
    return LineDisplay(stream, time.monotonic)


class LineDisplay:
    """One line per event, for logs and pipes.

    Progress is limited to one line per `PROGRESS_EVERY_S`. A withheld line is printed before the next event
    of another type, so the last progress is never lost.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._printed_at: float | None = None
        self._pending: ProgressEvent | None = None
        self._last_status = ""
        self._last_wait: tuple[str | None, int | None] | None = None

    def show(self, event: JobEvent) -> None:
        """Print the event; progress only at intervals, and a repeated status once."""
        if isinstance(event, ProgressEvent):
            now = self._clock()
            if self._printed_at is not None and now - self._printed_at < PROGRESS_EVERY_S:
                self._pending = event
                return
            self._printed_at, self._pending = now, None
            self._print(_progress_text(event))
            return
        if not isinstance(event, SnapshotEvent):
            self._print_pending()
        if isinstance(event, WaitingEvent):
            self._show_wait(event)
            return
        text = _event_text(event)
        # Two different reasons may have the same text: print it once.
        if text and not (isinstance(event, StatusEvent) and text == self._last_status):
            self._print(text)
        if isinstance(event, StatusEvent):
            self._last_status = text

    def has_shown(self, output: object) -> bool:
        """Return False: lines go to a log or a pipe."""
        return False

    def _show_wait(self, event: WaitingEvent) -> None:
        """Print why the job waits when the reason or the position has changed, not the time alone."""
        wait = (event.reason, event.position)
        # What follows a failed attempt was printed with it; a job that is next starts in a moment.
        if wait != self._last_wait and event.reason != "retry_backoff" and wait != ("ready", 1):
            self._print(one_line(event.message))
        self._last_wait = wait

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._print_pending()

    def _print_pending(self) -> None:
        """Print the progress that was withheld, if any."""
        if self._pending is not None:
            self._print(_progress_text(self._pending))
            self._pending = None

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class BarDisplay:
    """A progress bar that stays at the bottom while the handler's output scrolls above it.

    Streamed text takes the place of the bar: its pieces are written one after another, as one text.
    """

    def __init__(self, name: str, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._bar: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=max(10, min(30, console.width // 4))),
            TextColumn("{task.fields[percent]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[words]}", markup=False),
            console=console,
            refresh_per_second=12.5,
        )
        self._text_width = max(10, console.width - len(name) - console.width // 4 - 20)
        self._ended = False
        self._stream = stream
        #: The streamed pieces of text of this attempt, and whether the last one left its line open.
        self._pieces: list[str] = []
        self._is_line_open = False
        self._task: TaskID = self._bar.add_task(name, total=None, words="", percent="    ")

    def show(self, event: JobEvent) -> None:
        """Update the bar, or print above it; write a streamed text in its place."""
        if isinstance(event, OutputEvent) and isinstance(event.chunk, str):
            self._write_text(event.chunk)
            return
        self._end_line()
        if isinstance(event, ProgressEvent):
            has_fraction = event.fraction is not None
            self._bar.update(
                self._task,
                total=1.0 if has_fraction else None,
                # A full bar would stop its clock before the job has ended.
                completed=min(event.fraction or 0.0, 0.999),
                percent=f"{event.fraction or 0:4.0%}" if has_fraction else "    ",
                words=one_line(_progress_text(event, percent=False), self._text_width),
            )
        elif isinstance(event, StatusEvent):
            if event.error is not None:
                self._bar.console.print(_event_text(event), soft_wrap=True)
            if self._ended:
                # The job is retried: reset the bar.
                self._bar.reset(self._task, percent="    ", words="")
                self._ended = False
                self._pieces.clear()
                self._bar.start()
            self._bar.update(self._task, words=one_line(_status_text(event), self._text_width))
        elif isinstance(event, WaitingEvent):
            self._bar.update(self._task, words=one_line(event.message, self._text_width))
        elif isinstance(event, DoneEvent):
            self._ended = True
            ended = {"completed": 1.0, "total": 1.0, "percent": "100%"} if event.state == "succeeded" else {}
            self._bar.update(self._task, words=event.state, **ended)  # type: ignore[arg-type]
        else:
            text = _event_text(event)
            if text:
                self._bar.console.print(text, soft_wrap=True)

    def has_shown(self, output: object) -> bool:
        """Return whether the output is the streamed text, as its pieces or as one string."""
        return bool(self._pieces) and output in (self._pieces, "".join(self._pieces))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_line()
        self._bar.stop()

    def _write_text(self, piece: str) -> None:
        """Write a piece of text behind the one before; the first one removes the bar."""
        if not self._pieces:
            self._bar.live.transient = True
            self._bar.stop()
            self._bar.live.transient = False
        self._pieces.append(piece)
        self._stream.write(printable(piece))
        self._stream.flush()
        if piece:
            self._is_line_open = not piece.endswith("\n")

    def _end_line(self) -> None:
        """End the line of the streamed text, if the last piece has not."""
        if self._is_line_open:
            self._stream.write("\n")
            self._is_line_open = False


def _event_text(event: JobEvent) -> str:
    """Return the line to print for an event; "" for none."""
    match event:
        case StatusEvent(error=None):
            return _status_text(event)
        case StatusEvent():
            return _retry_text(event)
        case LogEvent():
            return printable(event.text).rstrip("\n")
        case OutputEvent():
            return one_line(event.chunk if isinstance(event.chunk, str) else repr(event.chunk), 400)
        case GapEvent():
            return f"(events {event.first} to {event.last} are no longer kept)"
        case DoneEvent():
            return event.state
    return ""


def _status_text(event: StatusEvent) -> str:
    """Return the new state in a word or two."""
    return (
        (event.reason or "queued").replace("_", " ")
        if event.state == "queued"
        else event.reason or event.state
    )


def _retry_text(event: StatusEvent) -> str:
    """Return the line about an attempt that failed and is retried."""
    message = one_line((event.error or {}).get("message") or "without a message", 400)
    delay_s, left = event.retry_in_s or 0.0, event.retries_left
    when = f" in {delay_s:.1f} s" if delay_s >= 0.05 else ""
    retries = "" if left is None else f" ({left} {'retry' if left == 1 else 'retries'} left)"
    return f"attempt {event.attempt} failed: {message}; retrying{when}{retries}"


def _progress_text(event: ProgressEvent, *, percent: bool = True) -> str:
    """Return the progress line, with the percentage unless the bar shows it."""
    fraction = event.fraction if percent else None
    return format_progress({**event.data, "fraction": fraction})
