"""Pure: what the parts of a worker need of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runner.wire import Call

if TYPE_CHECKING:
    from runner.worker.supervisor import Supervisor


class Upward(Protocol):
    """The worker as its supervisors see it."""

    def keep(self, message: bytes) -> None:
        """Send up a message that must not be lost."""

    def call(self, order: Call, message: bytes) -> None:
        """Send up a handler's question."""

    def allocated(self, supervisor: Supervisor) -> None:
        """It says that it holds other simulated bytes than before."""

    def is_alone(self, supervisor: Supervisor) -> bool:
        """Whether no other executor has processes now."""

    def spared(self) -> set[int]:
        """Processes of the worker that belong to no executor."""

    def wake_at(self, mono: float) -> None:
        """Have `tick` called then, or earlier."""

    def gone(self, supervisor: Supervisor) -> None:
        """Nothing is left of this one."""
