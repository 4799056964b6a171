"""Effect: starts `runner serve`, and reads within a time the line by which it says that it is ready."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO


def spawn_server(
    arguments: list[str], *, environ: Mapping[str, str], folder: Path, log: IO[bytes]
) -> tuple[subprocess.Popen[bytes], int]:
    """Start `runner serve`; return its process and the pipe on which it says that it is ready.

    `environ` is laid over the environment of this process, of which no `RUNNER_*` is kept.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNNER_")}
    ours, theirs = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runner", "serve", *arguments],
            env={**kept, **environ, "JOB_RUNNER_READY_FD": str(theirs)},
            cwd=folder,
            pass_fds=(theirs,),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return process, ours


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
