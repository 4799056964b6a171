"""Effect: a program on a terminal of its own, as a person has it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from types import TracebackType
from typing import Self

from tests.runner.cli.cli_process import environment


class Terminal:
    """`runner WORDS...` on 80 columns; use it as a context."""

    def __init__(self, *words: str, url: str) -> None:
        self._words = words
        self._env = environment(url, {"TERM": "xterm-256color"})
        self._fd = -1
        self.text = ""
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self._fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runner", *self._words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=self._env,
            start_new_session=True,
        )
        os.close(theirs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def until(self, words: str, within_s: float = 20.0) -> None:
        """Back when these words have been shown."""
        deadline = time.monotonic() + within_s
        while words not in self.text:
            assert self._read(deadline), f"{words!r} did not come:\n{self.text}"

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self, within_s: float = 20.0) -> int:
        """The exit status, once the program has ended."""
        deadline = time.monotonic() + within_s
        while self._read(deadline):
            continue
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        """Take in what comes; False at the end or when the time is over."""
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            chunk = os.read(self._fd, 65536)
        except OSError:
            # The last one on the other side has left.
            return False
        self.text += chunk.decode("utf-8", "replace")
        return bool(chunk)
