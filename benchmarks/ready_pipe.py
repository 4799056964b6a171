"""Effect: reads one line of a pipe within a time: how a started server says that it is ready."""

from __future__ import annotations

import os
import select
import time


def read_line(fd: int, within_s: float) -> bytes:
    """The line; b"" where the pipe closes or the time is over before its end."""
    text = b""
    until = time.monotonic() + within_s
    while not text.endswith(b"\n"):
        readable, _, _ = select.select([fd], [], [], max(0.0, until - time.monotonic()))
        chunk = os.read(fd, 4096) if readable else b""
        if not chunk:
            return b""
        text += chunk
    return text
