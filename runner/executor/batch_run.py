"""Effect: one running batch: its items, their common events and the outcome of each item."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from runner.executor import failures
from runner.executor.attempt_run import AttemptRun, run_callbacks
from runner.executor.context import Context
from runner.executor.environment import ExecutorEnvironment
from runner.executor.failures import ResultTooLarge
from runner.executor.invocation import Invocation
from runner.executor.loader import LoadedHandler
from runner.executor.output_capture import OutputCapture
from runner.formats import strict_json
from runner.protocol import worker as worker_protocol

if TYPE_CHECKING:
    from pathlib import Path


class BatchRun:
    """Takes the place of a single `AttemptRun` for the batch context, output capture and cancel signal."""

    __slots__ = (
        "attempt",
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
        for item in self.items:
            item.interrupt = self._on_item_cancelled

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
        """Return the item of an attempt."""
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

    def flush_progress(self, now: float | None) -> None:
        """Send pending progress of every member, if it is due."""
        for item in self.items:
            item.flush_progress(now)

    def on_cancel(self, function: Callable[[], object]) -> None:
        """Call the function once every member was asked to stop."""
        self.callbacks.append(function)
        if self.cancelled:
            self._on_item_cancelled()

    def close(self) -> None:
        """Disable the context once user code has returned."""
        self.closed = True
        self.interrupt = None
        self.callbacks = []
        for item in self.items:
            item.close()
        if self.tmpdir is not None:
            import shutil

            shutil.rmtree(self.tmpdir, ignore_errors=True)
            self.tmpdir = None

    def _on_item_cancelled(self) -> None:
        """Record that one more item was asked to stop; called by the channel thread."""
        if not self.cancelled:
            return
        interrupt, callbacks = self.interrupt, self.callbacks
        self.callbacks = []
        if interrupt is not None:
            interrupt()
        if callbacks:
            run_callbacks(callbacks, partial(self.add_log, "logging", "error"))

    # Running the batch.

    def run(
        self, handler: LoadedHandler, invocation: Invocation, capture: OutputCapture, staged: Sequence[object]
    ) -> bool:
        """Run the batch to the end of each item; `staged` is the work behind it.

        Returns:
            True if this process must exit.

        Raises:
            SystemExit: the handler ends the process.
        """
        environment, pid = self.environment, os.getpid()
        if environment.torch_memory is not None:
            environment.torch_memory.enforce_cap()
        endings = self._start(time.time())
        begin_ns = environment.page.start(len(endings))
        must_exit = _call_handler(self, handler, endings, invocation) or self.raise_requested
        if os.getpid() != pid:
            # A child that the handler forked returned through here; it must not send as this executor.
            os._exit(0)
        environment.page.finish(len(endings))
        run_s = (time.monotonic_ns() - begin_ns) / 1e9
        if environment.torch_memory is not None:
            environment.torch_memory.add_peak(endings[0])
        self.close()
        capture.flush()
        output_mark = capture.write_markers(self.items[0])
        for item, ended in zip(self.items, endings, strict=True):
            ended.run_s = run_s
            ended.peak_bytes, ended.reserved_bytes = endings[0].peak_bytes, endings[0].reserved_bytes
            item.complete_ended(ended, executor_closing=must_exit)
        environment.sender.add_batch_ended(
            self.items, endings, output_mark, may_wait=bool(staged) and not must_exit
        )
        return must_exit

    def _start(self, started_at: float) -> list[worker_protocol.AttemptEnded]:
        self.started_at = started_at
        endings = [
            worker_protocol.AttemptEnded(item.job_id, item.number, 0, None, batch_size=len(self.items))
            for item in self.items
        ]
        for item, ended in zip(self.items, endings, strict=True):
            item.started_at = ended.started_at = started_at
        return endings

    def read_inputs(self, handler: LoadedHandler, endings: list[worker_protocol.AttemptEnded]) -> list[Any]:
        """Return the inputs that the handler receives.

        Items that were asked to stop and items with an invalid input are left out.
        """
        assert handler.read_input is not None
        values: list[Any] = []
        members: list[AttemptRun] = []
        for item, ended in zip(self.items, endings, strict=True):
            if item.cancelled:
                continue
            try:
                value = handler.read_input(item.attempt.input)
            except Exception as error:
                _write_failure(ended, failures.classify(error))
                continue
            members.append(item)
            values.append(value)
        self.members = members
        return values

    def assign_outcomes(self, endings: list[worker_protocol.AttemptEnded], outcomes: list[Any]) -> bool:
        """Give each member its own outcome; return True if this process must exit."""
        is_fatal = False
        by_key = {(ended.job_id, ended.attempt): ended for ended in endings}
        for item, outcome in zip(self.members, outcomes, strict=True):
            ended = by_key[item.key]
            try:
                if isinstance(outcome, BaseException):
                    raise outcome
                ended.output = _encode_output(outcome, self.environment.config.output_max_bytes)
            except BaseException as error:
                found = failures.classify(error)
                is_fatal = is_fatal or found.is_fatal
                _write_failure(ended, found)
                failures.clear_frames(error)
        return is_fatal

    def fail_all(self, endings: list[worker_protocol.AttemptEnded], found: failures.AttemptFailure) -> None:
        """Fail every member, as the call failed."""
        keys = {item.key for item in self.members}
        for ended in endings:
            if (ended.job_id, ended.attempt) in keys:
                _write_failure(ended, found)
                ended.is_blame_unknown = len(keys) > 1


def _call_handler(
    batch: BatchRun,
    handler: LoadedHandler,
    endings: list[worker_protocol.AttemptEnded],
    invocation: Invocation,
) -> bool:
    """Call user code and write its outcomes into `endings`; return True if this process must exit.

    Raises:
        SystemExit: the handler ends the process.
    """
    cancel_signal = batch.environment.cancel_signal
    found: failures.AttemptFailure
    try:
        try:
            values = batch.read_inputs(handler, endings)
            if not values:
                return False
            cancel_signal.arm(batch)
            arguments = (values,) if handler.parameter_count == 1 else (values, Context(batch))
            outcomes = invocation.resolve_batch_result(batch, handler.call(*arguments))
        finally:
            cancel_signal.disarm()
        return batch.assign_outcomes(endings, _check_outcomes(outcomes, len(values)))
    except SystemExit:
        raise
    except BaseException as error:
        cancel_signal.disarm()
        found = failures.classify(error)
        failures.clear_frames(error)
    if found.code == "device_out_of_memory":
        failures.empty_device_cache()
    batch.fail_all(endings, found)
    return found.is_fatal


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


def _write_failure(ended: worker_protocol.AttemptEnded, found: failures.AttemptFailure) -> None:
    ended.code, ended.message, ended.detail = found.code, found.message, found.detail
    ended.retryable, ended.retry_at = found.retryable, found.retry_at


def _encode_output(outcome: Any, limit: int) -> bytes:
    output = strict_json.encode(outcome)
    if len(output) > limit:
        raise ResultTooLarge(f"an output of {len(output)} bytes or more; the limit is {limit}")
    return output
