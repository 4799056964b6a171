"""Pure: what the parts of a worker need of it."""

from __future__ import annotations

from typing import Protocol

from runner.protocol.worker import AttemptRequest


class WorkerLink(Protocol):
    """The worker as its supervisors see it."""

    def send_reliably(self, message: bytes) -> None:
        """Send up a message that must not be lost."""

    def forward_request(self, request: AttemptRequest, message: bytes) -> None:
        """Send up a handler's question."""

    def on_allocated(self, executor: int) -> None:
        """The executor reported a new amount of simulated device memory."""

    def is_alone(self, executor: int) -> bool:
        """Whether no other executor has processes now."""

    def own_pids(self) -> set[int]:
        """Processes of the worker that belong to no executor."""

    def wake_at(self, mono: float) -> None:
        """Have `tick` called then, or earlier."""

    def on_executor_gone(self, executor: int) -> None:
        """No process of the executor is left."""
