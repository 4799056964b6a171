"""Pure: what an executor runs at the moment: one attempt, or a batch of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from runner.executor.attempt_run import AttemptRun
    from runner.executor.environment import ExecutorEnvironment
    from runner.protocol.worker import AttemptSpec

#: Name of the logger of `ctx.log`; a record of it proves that the handler is alive.
LOGGER = "runner.job"


class ActiveRun(Protocol):
    """A single attempt and a batch look the same to the context, the output capture and the event loop."""

    #: Empty and 0 for a batch as a whole.
    job_id: str
    number: int
    attempt: AttemptSpec
    environment: ExecutorEnvironment
    #: UTC epoch seconds; 0.0 before the start.
    started_at: float
    #: User code has returned; its context is dead.
    closed: bool
    #: JobCancelled is to be raised in the main thread.
    raise_requested: bool
    #: Interrupts a coroutine that runs in the event loop.
    interrupt: Callable[[], None] | None
    #: Its private folder, once the handler has asked for it.
    tmpdir: Path | None

    @property
    def members(self) -> list[AttemptRun]:
        """The attempts that the handler works for."""

    @property
    def cancelled(self) -> bool:
        """All of them were asked to stop."""

    @property
    def reason(self) -> str:
        """Why they were asked to stop."""

    @property
    def pending_progress(self) -> object:
        """True where progress waits to be sent."""

    @property
    def progress_due(self) -> float:
        """When the progress that waits is to be sent; monotonic seconds."""

    def find(self, key: tuple[str, int]) -> AttemptRun | None:
        """The attempt with this key."""

    def file_owner(self) -> AttemptRun:
        """The one attempt to which a file belongs.

        Raises:
            RuntimeError: a batch; each file belongs to one of its jobs.
        """

    def require_open(self) -> None:
        """
        Raises:
            RuntimeError: it has ended.
        """

    def touch(self) -> None:
        """Record that the handler is alive."""

    def add_log(self, stream: str, level: str | None, text: str) -> None:
        """Add a log event."""

    def add_output(self, data: bytes) -> None:
        """Add an output event of a chunk's JSON text."""

    def add_metric(self, name: str, value: float) -> None:
        """Add a metric event."""

    def add_progress(self, done: float, total: float | None, message: str | None, details: Any) -> None:
        """Add a progress event, now or when the next one is due."""

    def flush_progress(self, now: float | None) -> None:
        """Send the progress that waits, if it is due by `now` (None: in any case)."""

    def on_cancel(self, function: Callable[[], object]) -> None:
        """Call the function when the handler is asked to stop, or now if it was already."""

    def close(self) -> None:
        """End the use of the context, send what waits and remove the private folder."""
