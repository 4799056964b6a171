"""Effect: finds and kills processes that executors left behind, by the marker in their environment.

Only the marker identifies them. Names and parent ids would not: a process with the same name may belong to
another program, and an orphan has lost its parent.
"""

from __future__ import annotations

import os
import signal

#: Environment variable of every executor; every process that an executor starts inherits it.
MARKER = "JOB_RUNNER_EXECUTOR"


def marker_of(pid: int) -> str | None:
    """Return the marker of a process, "WORKER NAME/EXECUTOR NUMBER".

    None without a marker (no executor started the process, or it has replaced its environment), and where
    the environment can't be read.
    """
    try:
        return _read_marker(pid)
    except OSError:
        return None


def _read_marker(pid: int) -> str | None:
    """As `marker_of`, but raise OSError if descriptors or memory have run out: nothing is known then."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        # The process has ended meanwhile, or belongs to another user.
        return None
    prefix = f"{MARKER}=".encode()
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode("utf-8", "replace")
    return None


def find_marked(prefix: str) -> list[int]:
    """Return the pids of all living processes whose marker begins with `prefix`.

    Raises:
        OSError: descriptors or memory have run out, so that some may be missed.
    """
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in pids if _has_marker(pid, prefix)]


def kill_marked(prefix: str) -> int:
    """Send SIGKILL to all processes whose marker begins with `prefix`; return the number of signals.

    Raises:
        OSError: descriptors or memory have run out; some were not found or not killed.
    """
    sent = 0
    for pid in find_marked(prefix):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            # Checked again under the pidfd: the pid may have been reused since the search.
            if _has_marker(pid, prefix):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                sent += 1
        except ProcessLookupError:
            continue
        finally:
            os.close(pidfd)
    return sent


def _has_marker(pid: int, prefix: str) -> bool:
    marker = _read_marker(pid)
    return marker is not None and marker.startswith(prefix)
