"""Effect: one child process on this node: its start, SIGKILL, and its exit status in words."""

from __future__ import annotations

import asyncio
import os
import signal

import msgspec

from runner.processes.child import Child, Role, start_child
from runner.processes.pulse import Activity


class LocalProcess:
    """A child process of the coordinator, from its start to its exit."""

    def __init__(self, child: Child, *, started_mono: float, name: str = "") -> None:
        """Wrap a started child; the log shows it by `name`, or by its pid if the name is empty."""
        self.child = child
        #: On the clock of the event loop, in seconds.
        self.started_mono = started_mono
        self._name = name or str(child.pid)

    @classmethod
    def spawn(
        cls, role: Role, config: msgspec.Struct, *, name: str = "", pass_fds: tuple[int, ...] = ()
    ) -> LocalProcess:
        """Start a process of this role; it inherits the descriptors `pass_fds`.

        Must be called from the main thread (see `start_child`).

        Raises:
            OSError: processes, descriptors or memory have run out.
        """
        child = start_child(role, config, pass_fds=pass_fds)
        return cls(child, started_mono=asyncio.get_running_loop().time(), name=name)

    @property
    def pid(self) -> int:
        """The id of the process on this node."""
        return self.child.pid

    @property
    def label(self) -> str:
        """The role and name of the process, for the log: "front 4711", "worker NAME"."""
        return f"{self.child.role} {self._name}"

    def read_activity(self) -> Activity | None:
        """See `Child.read_activity`."""
        return self.child.read_activity()

    def kill(self) -> None:
        """Send SIGKILL if the process is still alive; its pool detects the exit."""
        self.child.signal(signal.SIGKILL)


def describe_exit(status: int) -> str:
    """Describe an exit status as `Child.reap` returns it: "exit code 1", "signal SIGKILL"."""
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit code {os.waitstatus_to_exitcode(status) if status > 255 else status}"
