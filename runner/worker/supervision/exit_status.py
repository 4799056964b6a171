"""Pure: describes the death of an executor."""

from __future__ import annotations

import signal
from typing import NamedTuple


class ExitStatus(NamedTuple):
    """How a process ended: by a signal, by an exit code, or (both None) not at all."""

    signal_name: str | None
    exit_code: int | None
    #: The kernel's OOM killer was active in the executor's lifetime, and SIGKILL ended it.
    was_oom_kill: bool = False

    def message(self, activity: str) -> str:
        """Return a sentence about the death; `activity` is "running this job", "loading" or "idle"."""
        if self.signal_name:
            killer = " (the kernel's out-of-memory killer)" if self.was_oom_kill else ""
            return f"the executor was killed by {self.signal_name}{killer} while {activity}"
        return f"the executor exited with code {self.exit_code} while {activity}"

    def detail(self, stderr_tail: str) -> dict[str, str | int | bool | None]:
        """Return the machine-readable form; every death has the same keys."""
        return {
            "signal": self.signal_name,
            "exit_code": self.exit_code,
            "stderr_tail": stderr_tail,
            "oom_kill": self.was_oom_kill,
        }


def from_returncode(returncode: int, *, oom_kills: int = 0) -> ExitStatus:
    """Return the exit status for `Popen.returncode` (negative: a signal).

    `oom_kills` is the number of the kernel's OOM kills during the executor's life.
    """
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
