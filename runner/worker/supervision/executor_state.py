"""Pure: what the worker knows about one executor: its load command, attempts and phase."""

from __future__ import annotations

from dataclasses import dataclass

from runner.protocol.worker import LoadExecutor
from runner.worker.supervision.attempts import AttemptQueue


@dataclass(slots=True)
class ExecutorState:
    """State of an executor: loading, then loaded, then dead.

    `Supervisor` and its parts read and update it.
    """

    load_command: LoadExecutor
    attempts: AttemptQueue
    #: Marker in the environment of its processes.
    marker: str
    #: Start of the process, in monotonic seconds.
    started_mono: float = 0.0
    #: Duration of the load; None while it is loading.
    load_s: float | None = None
    #: Latest memory use, and bytes allocated on a simulated device.
    usage_bytes: int = 0
    allocated_bytes: int = 0
    #: The server is shutting down: no more attempts start here.
    is_stopping: bool = False
    is_loaded: bool = False
    is_dead: bool = False

    @property
    def number(self) -> int:
        """Return the executor's number."""
        return self.load_command.executor
