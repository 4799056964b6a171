"""Pure: what the worker knows about one executor: its load command, attempts and phase."""

from __future__ import annotations

from dataclasses import dataclass

from runner.protocol.worker import LoadExecutor
from runner.worker.supervision.attempts import AttemptQueue


@dataclass(slots=True)
class ExecutorState:
    """Loading, then loaded, then dead. `Supervisor` owns it; its parts read and update it."""

    load_command: LoadExecutor
    attempts: AttemptQueue
    #: Marker in the environment of its processes.
    marker: str
    #: Start of the process; monotonic seconds.
    started_mono: float = 0.0
    #: Duration of the load; None while it loads.
    load_s: float | None = None
    #: Memory used now, and allocated on a simulated device, as last seen.
    usage_bytes: int = 0
    allocated_bytes: int = 0
    #: The server shuts down: no further attempt starts here.
    is_stopping: bool = False
    is_loaded: bool = False
    is_dead: bool = False

    @property
    def number(self) -> int:
        """Return the executor's number."""
        return self.load_command.executor
