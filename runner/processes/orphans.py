"""Effect: finds and kills processes left behind by the runner, by the marker in their environment.

Never by name and never by walking parent ids: a process that only looks alike may belong to another program.
"""

from __future__ import annotations

import os
import signal

#: Environment variable of every executor, which everything that it starts inherits.
MARKER = "JOB_RUNNER_EXECUTOR"


def marker_of(pid: int) -> str | None:
    """Return the executor that started a process ("<worker name>/<number>"), if it still has the marker."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
    except OSError:
        # It has ended meanwhile, or belongs to another user.
        return None
    prefix = f"{MARKER}=".encode()
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode("utf-8", "replace")
    return None


def find_marked(prefix: str) -> list[int]:
    """Return the pids of all living processes whose marker begins with `prefix`."""
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in pids if _has_marker(pid, prefix)]


def kill_marked(prefix: str) -> int:
    """Send SIGKILL to all of them; return the number of signals sent."""
    sent = 0
    for pid in find_marked(prefix):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            # Check again under the pidfd: the pid may belong to another process by now.
            if _has_marker(pid, prefix):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                sent += 1
        except ProcessLookupError:
            continue
        finally:
            os.close(pidfd)
    return sent


def _has_marker(pid: int, prefix: str) -> bool:
    marker = marker_of(pid)
    return marker is not None and marker.startswith(prefix)
