"""Effect: finds and ends processes that our own left behind, by the marker in their environment.

Never by name and never by walking parent ids: a look-alike of somebody else is not ours to end.
"""

from __future__ import annotations

import os
import signal

#: The environment variable that every executor, and so everything it starts, carries.
MARKER = "JOB_RUNNER_EXECUTOR"


def marked(prefix: str) -> list[int]:
    """Pids of all living processes whose marker begins with `prefix`."""
    wanted = f"{MARKER}={prefix}".encode()
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _carries(entry, wanted)]


def kill_marked(prefix: str) -> int:
    """SIGKILL all of them; the number of signals sent."""
    wanted = f"{MARKER}={prefix}".encode()
    sent = 0
    for pid in marked(prefix):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            # Looked at again under the pidfd: the number may belong to another process by now.
            if _carries(str(pid), wanted):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                sent += 1
        except ProcessLookupError:
            continue
        finally:
            os.close(pidfd)
    return sent


def _carries(pid: str, wanted: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
    except OSError:
        # It has ended meanwhile, or belongs to somebody else.
        return False
    return environment.startswith(wanted) or b"\0" + wanted in environment
