"""Effect: configures the log of every process: one line for each record, as text or JSON."""

from __future__ import annotations

import atexit
import logging
import sys
import time
from typing import TextIO

import msgspec

from runner.formats.printable import printable
from runner.processes.log_sink import LogSink

#: Loggers of libraries that log the content of requests and streams, which may be private.
NOISY_LOGGERS = ("sse_starlette", "asyncio", "httpcore2", "httpx2")


def configure(format: str, level: str, process: str, stream: TextIO | None = None) -> None:
    """Send all logging of this process to `stream`; without one to stderr, which never blocks it: lines that
    nobody reads are dropped, see `LogSink`.

    `format` is "json", "human" or "auto": human on a terminal, else JSON. `level` is the name of a level of
    `logging`, in any case. `process` names the process in each line: "coordinator", "worker cpu". A caller
    that logs about a job passes `extra={"job": id, "attempt": number}`.
    """
    if format == "auto":
        format = "human" if (stream or sys.stderr).isatty() else "json"
    formatter = _JsonFormatter(process) if format == "json" else _HumanFormatter(process)
    fd = None if stream is not None else _stderr_fd()
    handler = logging.StreamHandler(stream) if fd is None else _SinkHandler(fd, formatter)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # At level "debug" these would log the payload of every stream.
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


class _SinkHandler(logging.Handler):
    """Writes records to a descriptor through a `LogSink`."""

    def __init__(self, fd: int, formatter: logging.Formatter) -> None:
        super().__init__()

        def describe_dropped(count: int) -> bytes:
            text = f"{count} lines of this log were dropped here: nobody read it"
            return _encode_line(
                formatter, logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None)
            )

        self._sink = LogSink(fd, describe_dropped)
        atexit.register(self._sink.flush)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; called by `logging`."""
        assert self.formatter is not None
        try:
            line = _encode_line(self.formatter, record)
        except Exception:
            self.handleError(record)
        else:
            self._sink.put(line)


def _stderr_fd() -> int | None:
    """Return the descriptor of stderr; None if it was replaced by an object without one."""
    try:
        return sys.stderr.fileno()
    except OSError:
        return None


def _encode_line(formatter: logging.Formatter, record: logging.LogRecord) -> bytes:
    return f"{formatter.format(record)}\n".encode("utf-8", "backslashreplace")


class _HumanFormatter(logging.Formatter):
    """A line for people: local time to milliseconds, level, process, text and the job."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = record.levelname.lower()
        # Errors of handlers and reasons from clients are part of it: a terminal must not interpret them.
        message = printable(_text(self, record))
        text = f"{at}.{int(record.msecs):03d} {level:<7} {self._process}: {message}"
        job = getattr(record, "job", None)
        return f"{text} (job {job}, attempt {getattr(record, 'attempt', None)})" if job else text


class _JsonFormatter(logging.Formatter):
    """One JSON object in each line; `job` and `attempt` are null for records that concern no job."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, str | int | None] = {
            "at": _utc(record.created),
            "level": record.levelname.lower(),
            "process": self._process,
            "job": getattr(record, "job", None),
            "attempt": getattr(record, "attempt", None),
            "text": _text(self, record),
        }
        return msgspec.json.encode(entry).decode()


def _utc(epoch_s: float) -> str:
    """Return RFC 3339 text with milliseconds."""
    whole, thousandths = divmod(int(epoch_s * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{thousandths:03d}Z"


def _text(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Return the message with its traceback, without lone surrogates, which can't be written."""
    text = record.getMessage()
    if record.exc_info:
        text = f"{text}\n{formatter.formatException(record.exc_info)}"
    return text.encode("utf-8", "backslashreplace").decode()
