"""Pure: the interface of the worker for its supervisors."""

from __future__ import annotations

from typing import Protocol

from runner.protocol.worker import AttemptRequest


class WorkerLink(Protocol):
    """The worker as its supervisors use it; see `WorkerProcess` for details."""

    def send_reliably(self, message: bytes) -> None:
        """Send a message that must not be lost."""

    def forward_request(self, request: AttemptRequest, message: bytes) -> None:
        """Send a handler's request to the coordinator."""

    def on_allocated(self, executor: int) -> None:
        """Record that an executor reported a new amount of simulated device memory."""

    def is_alone(self, executor: int) -> bool:
        """Return whether no other executor has processes."""

    def own_pids(self) -> set[int]:
        """Return the pids of processes that the worker itself needs."""

    def wake_at(self, mono: float) -> None:
        """Have the periodic check run at this monotonic time or earlier."""

    def on_executor_gone(self, executor: int) -> None:
        """Forget an executor that has no processes left."""
