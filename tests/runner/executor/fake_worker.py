"""Effect: plays the worker to a real executor process: real socket pair, page, pipes and signals."""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from runner.handlers.spec import Source
from runner.protocol import framing
from runner.protocol import worker as worker_protocol

ROOT = Path(__file__).resolve().parents[3]
PAGE = struct.Struct("<QQQQ")
PAGE_BYTES = 64 * 1024
#: Longest wait for anything in a test.
PATIENCE_S = 15.0


class FakeWorker:
    """Reads only when asked to, so that a test decides whether there is back-pressure."""

    def __init__(
        self,
        folder: Path,
        code: str,
        attr: str,
        kind: str,
        *,
        environ: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        file = folder / "handlers_under_test.py"
        file.write_text(textwrap.dedent(code))
        for name in ("files", "tmp"):
            (folder / name).mkdir(exist_ok=True)
        self.files = folder / "files"
        self.folder = folder
        self.messages: list[Any] = []
        self.printed = {"stdout": b"", "stderr": b""}
        self.reads = 0
        self._buffer = framing.FrameBuffer()
        self._start(environ or {})
        fields: dict[str, Any] = {
            "output_max_bytes": 1 << 20,
            "log_max_bytes": 1 << 16,
            "events_max": 1000,
            "devices": ["cpu"],
            "device": "cpu",
            "grant_bytes": 0,
        }
        fields.update(settings)
        self.send(
            worker_protocol.ConfigureExecutor(
                executor=7,
                source=Source("file", str(file), attr, (str(folder),)),
                name=attr,
                kind=kind,
                files_dir=str(self.files),
                tmp_dir=str(folder / "tmp"),
                **fields,
            )
        )

    def _start(self, environ: Mapping[str, str]) -> None:
        page = os.memfd_create("page")
        os.ftruncate(page, PAGE_BYTES)
        self.page = mmap.mmap(page, PAGE_BYTES)
        self.channel, theirs = socket.socketpair()
        out, err = os.pipe(), os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runner.executor"],
            pass_fds=(theirs.fileno(), page),
            stdin=subprocess.DEVNULL,
            stdout=out[1],
            stderr=err[1],
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                **environ,
                "JOB_RUNNER_CHANNEL_FD": str(theirs.fileno()),
                "JOB_RUNNER_PAGE_FD": str(page),
                "JOB_RUNNER_PARENT_PID": str(os.getpid()),
                "JOB_RUNNER_EXECUTOR": "test/7",
            },
        )
        for fd in (page, out[1], err[1]):
            os.close(fd)
        theirs.close()
        self.pipes = {"stdout": out[0], "stderr": err[0]}
        for fd in self.pipes.values():
            os.set_blocking(fd, False)
        self.channel.setblocking(False)

    def send(self, *messages: msgspec.Struct) -> None:
        self.channel.setblocking(True)
        self.channel.sendall(
            framing.with_length(framing.pack([worker_protocol.encode(one) for one in messages]))
        )
        self.channel.setblocking(False)

    def attempt(self, job_id: str, value: Any = None, **fields: Any) -> worker_protocol.AttemptSpec:
        return worker_protocol.AttemptSpec(job_id, 1, "under_test", json.dumps(value).encode(), **fields)

    def run(self, job_id: str = "j", value: Any = None, **fields: Any) -> worker_protocol.AttemptEnded:
        """Hand one attempt over and wait for its end."""
        self.send(worker_protocol.RunAttempts(7, [self.attempt(job_id, value, **fields)]))
        return self.wait_for_end(job_id)

    def until(self, found: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
        """Read until the condition gives something true.

        Raises:
            AssertionError: it did not come, with all that did.
        """
        end = time.monotonic() + within_s
        while not (result := found()):
            left = end - time.monotonic()
            if left <= 0 or not self._read(left):
                self._read_pipes()
                raise AssertionError(f"did not come; {self.messages} {self.printed} {self.process.poll()}")
        return result

    def wait_for_end(self, job_id: str = "j") -> worker_protocol.AttemptEnded:
        found: worker_protocol.AttemptEnded = self.until(
            lambda: next(iter(self.messages_of(worker_protocol.AttemptEnded, job_id)), None)
        )
        return found

    def messages_of(self, kind: type, job_id: str | None = None) -> list[Any]:
        return [
            one
            for one in self.messages
            if isinstance(one, kind) and job_id in (None, getattr(one, "job_id", None))
        ]

    def events_of(self, kind: str, job_id: str = "j") -> list[Any]:
        """The data of all events of a type that have come."""
        return [
            json.loads(data)
            for note in self.messages_of(worker_protocol.AttemptEvents, job_id)
            for type_, _, data in note.events
            if type_ == kind
        ]

    def logs_of(self, job_id: str = "j") -> list[tuple[str, str | None, str]]:
        return [(one["stream"], one["level"], one["text"]) for one in self.events_of("log", job_id)]

    def read_page(self) -> tuple[int, int, int, int]:
        """Started, started at, finished, active at."""
        return PAGE.unpack_from(self.page)

    def until_quiet(self, quiet_s: float = 0.2) -> None:
        """Wait, without reading, until the handler has not used its context for a while."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            left_s = self.read_page()[3] / 1e9 + quiet_s - time.monotonic()
            if self.read_page()[0] and left_s <= 0:
                return
            # The pipes say nothing either; the timeout is what is waited for.
            select.select([], [], [], max(0.01, left_s))
        raise AssertionError("the handler did not become quiet")

    def exit_code(self) -> int:
        """Read on until it has exited."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and self._read(end - time.monotonic()):
            pass
        code = self.process.wait(PATIENCE_S)
        self._read_pipes()
        return code

    def close(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for fd in self.pipes.values():
            os.close(fd)
        self.page.close()

    def _read(self, left_s: float) -> bool:
        """Wait for something; False at end of file or when the time is over."""
        ready, _, _ = select.select([self.channel.fileno(), *self.pipes.values()], [], [], left_s)
        self._read_pipes()
        if self.channel.fileno() not in ready:
            return bool(ready) and self.process.poll() is None
        try:
            chunk = self.channel.recv(1 << 20)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            return False
        self.reads += 1
        for frame in self._buffer.feed(chunk):
            self.messages += [
                worker_protocol.from_executor_decoder.decode(one) for one in framing.unpack(frame)
            ]
        return True

    def _read_pipes(self) -> None:
        for name, fd in self.pipes.items():
            try:
                self.printed[name] += os.read(fd, 1 << 20)
            except BlockingIOError:
                continue


@contextmanager
def running_executor(
    folder: Path, code: str, attr: str = "f", kind: str = "function", **settings: Any
) -> Iterator[FakeWorker]:
    """A fake worker with its executor, ended in any case."""
    worker = FakeWorker(folder, code, attr, kind, **settings)
    try:
        yield worker
    finally:
        worker.close()
