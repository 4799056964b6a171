"""Pure: what its worker knows of one executor: its order, its attempts, and how far its life has come."""

from __future__ import annotations

from dataclasses import dataclass

from runner.protocol.worker import LoadExecutor
from runner.worker.supervision.attempts import AttemptQueue


@dataclass(slots=True)
class ExecutorState:
    """Loading, then loaded, then dead. `Supervisor` owns it; its parts read it and write what they learn."""

    load_command: LoadExecutor
    attempts: AttemptQueue
    #: What the environment of its processes carries.
    marker: str
    #: When its start was begun; monotonic seconds.
    started_mono: float = 0.0
    #: How long the load took; None while it loads.
    load_s: float | None = None
    #: Memory it uses now and what it allocated on a simulated device, as last seen.
    usage_bytes: int = 0
    allocated_bytes: int = 0
    #: The server shuts down: nothing more starts here.
    is_stopping: bool = False
    is_loaded: bool = False
    is_dead: bool = False

    @property
    def number(self) -> int:
        """The executor's number."""
        return self.load_command.executor
