"""Effect: one running batch: its items, their common events and the call of the handler."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from runner.executor.attempt_run import AttemptRun, run_callbacks
from runner.executor.context import Context
from runner.executor.environment import ExecutorEnvironment
from runner.executor.invocation import Invocation
from runner.executor.loader import LoadedHandler
from runner.executor.result_errors import ResultTooLarge
from runner.executor.results import ResultEncoder
from runner.executor.started_run import StartedRun
from runner.protocol import worker as worker_protocol

if TYPE_CHECKING:
    from pathlib import Path
    from weakref import ReferenceType


class BatchRun:
    """Several attempts that one call of the handler runs.

    Stands in for a single `AttemptRun` in the attempt runner, the context, the output capture and the cancel
    signal. Events of the batch are added to every member; it is cancelled once all its members are.
    """

    __slots__ = (
        "attempt",
        "bars",
        "callbacks",
        "closed",
        "environment",
        "interrupt",
        "items",
        "job_id",
        "members",
        "number",
        "raise_requested",
        "started_at",
        "tmpdir",
    )

    def __init__(self, attempts: list[worker_protocol.AttemptSpec], environment: ExecutorEnvironment) -> None:
        #: All items of the batch; `members` leaves out those that the handler does not receive.
        self.items = [AttemptRun(attempt, environment) for attempt in attempts]
        self.members = self.items
        self.environment = environment
        self.job_id = ""
        self.number = 0
        # The batch has the shortest run timeout of its attempts, so `ctx.deadline` is the first of theirs.
        limits = [attempt.timeout_s for attempt in attempts if attempt.timeout_s is not None]
        self.attempt = worker_protocol.AttemptSpec(
            "", 0, attempts[0].handler, b"null", min(limits, default=None)
        )
        self.started_at = 0.0
        self.raise_requested = False
        self.closed = False
        self.interrupt: Callable[[], None] | None = None
        self.callbacks: list[Callable[[], object]] = []
        self.tmpdir: Path | None = None
        self.bars: list[ReferenceType[Any]] = []
        for item in self.items:
            item.interrupt = self._on_item_cancelled
            item.batch_folder = lambda: self.tmpdir

    # The interface of `ActiveRun`.

    @property
    def cancelled(self) -> bool:
        """Return True once every member was asked to stop."""
        return all(item.cancelled for item in self.members)

    @property
    def reason(self) -> str:
        """Return the reason of the member that was asked first."""
        return next((item.reason for item in self.items if item.cancelled), "")

    @property
    def pending_progress(self) -> bool:
        """Return True while the progress of a member is pending."""
        return any(item.pending_progress for item in self.items)

    @property
    def progress_due(self) -> float:
        """Return when the first pending progress is due; monotonic seconds."""
        return min((item.progress_due for item in self.items if item.pending_progress), default=0.0)

    def find(self, key: tuple[str, int]) -> AttemptRun | None:
        """Return the item with this key, if it is in the batch."""
        return next((item for item in self.items if item.key == key), None)

    def file_owner(self) -> AttemptRun:
        """Refuse files of the batch as a whole.

        Raises:
            RuntimeError: always, as a file belongs to one job.
        """
        raise RuntimeError("a file belongs to one job: in a batch, use ctx.items[i].save_file(...)")

    def require_open(self) -> None:
        """Refuse further use after the end of the batch.

        Raises:
            RuntimeError: the batch has ended.
        """
        if self.closed:
            raise RuntimeError("the batch has ended; its context is dead")

    def touch(self) -> None:
        """Record that the handler is alive."""
        self.environment.page.touch()

    def add_log(self, stream: str, level: str | None, text: str) -> None:
        """Add a log event to every member: which of them a line was printed for is unknown."""
        for item in self.members:
            item.add_log(stream, level, text)

    def add_output(self, data: bytes) -> None:
        """Add an output event to every member."""
        for item in self.members:
            item.add_output(data)

    def add_metric(self, name: str, value: float) -> None:
        """Add a metric event to every member."""
        for item in self.members:
            item.add_metric(name, value)

    def add_progress(self, done: float, total: float | None, message: str | None, details: Any) -> None:
        """Add a progress event to every member."""
        for item in self.members:
            item.add_progress(done, total, message, details)

    def add_bar_progress(self, done: float, total: float | None, message: str | None) -> None:
        """Add the progress of a bar of tqdm to every member whose context was not used for progress."""
        for item in self.members:
            item.add_bar_progress(done, total, message)

    def flush_progress(self, now: float | None) -> None:
        """Send pending progress of every item that is due by `now` (monotonic seconds; None: all of it)."""
        for item in self.items:
            item.flush_progress(now)

    def on_cancel(self, function: Callable[[], object]) -> None:
        """Call the function once every member was asked to stop."""
        self.callbacks.append(function)
        if self.cancelled:
            self._on_item_cancelled()

    def close(self) -> None:
        """Disable the contexts of the batch and its items, send pending events, remove private folders."""
        self.closed = True
        self.interrupt = None
        self.callbacks = []
        for item in self.items:
            item.close()
        if self.tmpdir is not None:
            from runner.executor.folder_removal import remove_folder

            remove_folder(self.tmpdir)
            self.tmpdir = None

    def _on_item_cancelled(self) -> None:
        """Interrupt the handler once all members were asked to stop; called by the channel thread."""
        if not self.cancelled:
            return
        interrupt, callbacks = self.interrupt, self.callbacks
        self.callbacks = []
        if interrupt is not None:
            interrupt()
        if callbacks:
            run_callbacks(callbacks, partial(self.add_log, "logging", "error"))

    # The call of the handler.

    def call_handler(self, handler: LoadedHandler, started: StartedRun, invocation: Invocation) -> None:
        """Call user code with all inputs that are valid and write each member's outcome into `started`.

        The cancel signal is armed during the call, and still armed if the call raises. Whatever is raised
        fails every member.

        Raises:
            TypeError: the handler returned no list with one outcome for each input.
            BaseException: whatever user code raises.
        """
        values = self._read_inputs(handler, started)
        if not values:
            return
        cancel_signal = self.environment.cancel_signal
        cancel_signal.arm(self)
        arguments = (values,) if handler.parameter_count == 1 else (values, Context(self))
        outcomes = invocation.resolve_batch_result(self, handler.call(*arguments))
        cancel_signal.disarm()
        self._write_outcomes(started, _check_outcomes(outcomes, len(values)), handler.results)

    def _read_inputs(self, handler: LoadedHandler, started: StartedRun) -> list[Any]:
        """Return the inputs that the handler receives, in the order of `members`, which is set here.

        Items that were asked to stop and items with an invalid input are left out.
        """
        assert handler.read_input is not None
        values: list[Any] = []
        members: list[AttemptRun] = []
        for item in self.items:
            if item.cancelled:
                continue
            try:
                value = handler.read_input(item.attempt.input)
            except Exception as error:
                started.write_failure(error, [item])
                continue
            members.append(item)
            values.append(value)
        self.members = members
        return values

    def _write_outcomes(self, started: StartedRun, outcomes: list[Any], results: ResultEncoder) -> None:
        """Give each member its own outcome: an output, or the exception that the handler returned for it."""
        for item, outcome in zip(self.members, outcomes, strict=True):
            try:
                if isinstance(outcome, BaseException):
                    raise outcome
                output = results.encode_returned(item, outcome)
                _check_size(output, self.environment.config.output_max_bytes)
            except BaseException as error:
                started.write_failure(error, [item])
            else:
                started.endings[item.key].output = output


def _check_outcomes(outcomes: Any, count: int) -> list[Any]:
    """Check that there is one outcome for each input.

    Raises:
        TypeError: the outcomes are not one for each input.
    """
    if not isinstance(outcomes, list | tuple):
        raise TypeError(f"a batch returns a list with an outcome for each input, not {type(outcomes)!r}")
    if len(outcomes) != count:
        raise TypeError(f"the batch had {count} inputs, but it returned {len(outcomes)} outcomes")
    return list(outcomes)


def _check_size(output: bytes, limit: int) -> None:
    """Check the JSON text of one outcome.

    Raises:
        ResultTooLarge: the text has more than `limit` bytes.
    """
    if len(output) > limit:
        raise ResultTooLarge(f"an output of {len(output)} bytes or more; the limit is {limit}")
