"""Pure: describes the death of an executor."""

from __future__ import annotations

import signal
from typing import NamedTuple


class ExitStatus(NamedTuple):
    """How a process ended: by a signal, by an exit code, or (both None) still alive."""

    signal_name: str | None
    exit_code: int | None
    was_oom_kill: bool = False

    def message(self, activity: str) -> str:
        """Describe the death; `activity`: "running this job", "loading", "idle"."""
        if self.signal_name:
            killer = " (the kernel's out-of-memory killer)" if self.was_oom_kill else ""
            return f"the executor was killed by {self.signal_name}{killer} while {activity}"
        return f"the executor ended with exit code {self.exit_code} while {activity}"

    def detail(self, stderr_tail: str) -> dict[str, str | int | bool | None]:
        """Return the machine-readable form; the same keys for every death."""
        return {
            "signal": self.signal_name,
            "exit_code": self.exit_code,
            "stderr_tail": stderr_tail,
            "oom_kill": self.was_oom_kill,
        }


def from_returncode(returncode: int, *, oom_kills: int = 0) -> ExitStatus:
    """Build it from `Popen.returncode` (negative: a signal) and the kernel's OOM kills since the start."""
    if returncode >= 0:
        return ExitStatus(None, returncode)
    return ExitStatus(
        _signal_name(-returncode), None, was_oom_kill=-returncode == signal.SIGKILL and oom_kills > 0
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
