"""Pure: what is said of an executor's death."""

from __future__ import annotations

import signal
from typing import NamedTuple


class Verdict(NamedTuple):
    """How a process ended: by a signal, by an exit code, or (both None) not by itself."""

    signal_name: str | None
    exit_code: int | None
    was_oom_kill: bool = False

    def message(self, doing: str) -> str:
        """`doing`: "running this job", "loading", "idle"."""
        if self.signal_name:
            by = " (the kernel's out-of-memory killer)" if self.was_oom_kill else ""
            return f"the executor was killed by {self.signal_name}{by} while {doing}"
        return f"the executor ended with exit code {self.exit_code} while {doing}"

    def detail(self, stderr_tail: str) -> dict[str, str | int | bool | None]:
        """For machines; the same keys for every death."""
        return {
            "signal": self.signal_name,
            "exit_code": self.exit_code,
            "stderr_tail": stderr_tail,
            "oom_kill": self.was_oom_kill,
        }


def of_status(status: int, *, oom_kills: int = 0) -> Verdict:
    """From a `Popen.returncode` (negative: a signal) and the kernel's kills in our group since the start."""
    if status >= 0:
        return Verdict(None, status)
    return Verdict(_name(-status), None, was_oom_kill=-status == signal.SIGKILL and oom_kills > 0)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
