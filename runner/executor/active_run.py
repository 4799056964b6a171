"""Pure: interface of the work that an executor runs at the moment: one attempt, or a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path
    from weakref import ReferenceType

    from runner.executor.attempt_run import AttemptRun
    from runner.executor.environment import ExecutorEnvironment
    from runner.protocol.worker import AttemptSpec

#: Name of the logger behind `ctx.log`; each record of it proves that the handler is alive.
LOGGER = "runner.job"


class ActiveRun(Protocol):
    """Common interface of `AttemptRun`, `SlotRun` and `BatchRun`.

    The attempt runner, the context, the output capture and the event loop use it.
    """

    #: Empty, and attempt 0, for a batch as a whole.
    job_id: str
    number: int
    attempt: AttemptSpec
    environment: ExecutorEnvironment
    #: UTC epoch seconds; 0.0 before the start.
    started_at: float
    #: User code has returned; its context no longer works.
    closed: bool
    #: JobCancelled must be raised in the main thread.
    raise_requested: bool
    #: Interrupts the coroutine that runs in the event loop.
    interrupt: Callable[[], None] | None
    #: Open bars of tqdm, the outermost first.
    bars: list[ReferenceType[Any]]
    #: Private folder of the attempt, once the handler has asked for it.
    tmpdir: Path | None

    @property
    def items(self) -> Sequence[AttemptRun]:
        """Return all attempts of the run, which begin and end together."""

    @property
    def members(self) -> list[AttemptRun]:
        """Return the attempts that the handler received; a batch leaves out items that can't run."""

    @property
    def cancelled(self) -> bool:
        """Return True once every attempt was asked to stop."""

    @property
    def reason(self) -> str:
        """Return why they were asked to stop."""

    @property
    def pending_progress(self) -> object:
        """Return a true value while progress waits to be sent."""

    @property
    def progress_due(self) -> float:
        """Return when pending progress must be sent; monotonic seconds."""

    def find(self, key: tuple[str, int]) -> AttemptRun | None:
        """Return the attempt with this key."""

    def file_owner(self) -> AttemptRun:
        """Return the attempt that owns files which the handler saves or opens.

        Raises:
            RuntimeError: this is a batch; each file belongs to one of its jobs.
        """

    def require_open(self) -> None:
        """Refuse further use after the end of the run.

        Raises:
            RuntimeError: the run has ended.
        """

    def touch(self) -> None:
        """Record that the handler is alive."""

    def add_log(self, stream: str, level: str | None, text: str) -> None:
        """Add a log event."""

    def add_output(self, data: bytes) -> None:
        """Add an output event with the JSON text of a chunk."""

    def add_metric(self, name: str, value: float) -> None:
        """Add a metric event."""

    def add_progress(self, done: float, total: float | None, message: str | None, details: Any) -> None:
        """Add a progress event now, or when the next one is due."""

    def add_bar_progress(self, done: float, total: float | None, message: str | None) -> None:
        """Add the progress that a bar of tqdm shows, unless the handler reports progress itself."""

    def flush_progress(self, now: float | None) -> None:
        """Send pending progress if it is due by `now` (None: in any case)."""

    def on_cancel(self, function: Callable[[], object]) -> None:
        """Call the function when the handler is asked to stop, or now if that has happened already."""

    def close(self) -> None:
        """Disable the context, send pending events and remove the private folder."""
