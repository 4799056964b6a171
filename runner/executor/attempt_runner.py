"""Effect: runs attempts and batches one after another in the main thread, each to its `AttemptEnded`."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

from runner.executor import bootstrap, failures
from runner.executor.attempt_run import AttemptRun
from runner.executor.cancel_signal import CancelSignal
from runner.executor.channel import POLL_S
from runner.executor.context import Context
from runner.executor.invocation import Invocation
from runner.executor.loader import LoadedHandler
from runner.executor.output_capture import OutputCapture
from runner.executor.sender import DEFER_S, Sender
from runner.executor.shared_page import SharedPage
from runner.protocol import worker as worker_protocol

if TYPE_CHECKING:
    from runner.executor.batch_run import BatchRun

#: Longest wait until the worker has read the last messages.
FLUSH_TIMEOUT_S = 5.0
#: Bound on cancel requests kept for attempts that are neither staged nor running at that instant.
UNMATCHED_MAX = 64


class AttemptRunner:
    """Runs attempts and batches; `run_attempt` and `run_batch` belong to the main thread."""

    def __init__(
        self, page: SharedPage, sender: Sender, cancel_signal: CancelSignal, staged: deque[Any]
    ) -> None:
        self._page, self._sender, self._cancel_signal = page, sender, cancel_signal
        #: Attempts and batches staged behind the current one.
        self._staged = staged
        #: What runs now; while the handler loads, the attempt or batch that caused the load.
        self.current: AttemptRun | BatchRun | None = None
        self.capture = OutputCapture(lambda: self.current)
        self.invocation = Invocation()
        self._unmatched_flags: deque[worker_protocol.RequestCancel] = deque(maxlen=UNMATCHED_MAX)
        self._main = threading.get_ident()
        self._pid = os.getpid()

    # The methods up to `flush_due_progress` are called by the channel thread.

    def find(self, key: tuple[str, int]) -> AttemptRun | None:
        """Return the attempt with this key, if it runs."""
        run = self.current
        return None if run is None else run.find(key)

    def keep_flag(self, flag: worker_protocol.RequestCancel) -> None:
        """Keep a cancel request for an attempt that may be between the queue and its start."""
        self._unmatched_flags.append(flag)

    def raise_cancelled(self, key: tuple[str, int]) -> None:
        """Raise JobCancelled in the main thread, if this attempt still runs."""
        run = self.current
        if run is not None and run.find(key) is not None and not run.closed:
            run.raise_requested = True
            signal.pthread_kill(self._main, signal.SIGUSR1)

    def flush_due_progress(self, now: float) -> float | None:
        """Send progress that is due; return when the next is due."""
        run = self.current
        if run is None:
            return now + DEFER_S if self._staged else None
        run.flush_progress(now)
        if self._staged:
            return now + DEFER_S
        return min(now + POLL_S, run.progress_due) if run.pending_progress else now + POLL_S

    # The methods below run in the main thread.

    def attribute_load(self, run: AttemptRun | BatchRun) -> None:
        """Attribute import and load to the attempt or batch that caused them."""
        self.current = run
        self.capture.emit_early(run)

    def run_attempt(self, run: AttemptRun, handler: LoadedHandler) -> None:
        """Run one attempt from its start to its `AttemptEnded`."""
        self._prepare(run)
        ended = worker_protocol.AttemptEnded(run.job_id, run.number, 0, None)
        memory = run.environment.torch_memory
        if memory is not None:
            memory.enforce_cap()
        run.started_at = ended.started_at = time.time()
        begin_ns = self._page.start()
        is_fatal = self._call_handler(run, handler, ended)
        if os.getpid() != self._pid:
            # A child that the handler forked returned through here; it must not send as this executor.
            os._exit(0)
        self._page.finish()
        ended.run_s = (time.monotonic_ns() - begin_ns) / 1e9
        if memory is not None:
            memory.add_peak(ended)
        run.close()
        self.capture.flush()
        output_mark = self.capture.write_markers(run)
        run.complete_ended(ended, executor_closing=is_fatal or run.raise_requested)
        self._sender.add_ended(run, ended, output_mark, may_wait=bool(self._staged) and not is_fatal)
        self.current = None
        if is_fatal or run.raise_requested:
            self.exit(bootstrap.EXIT_UNUSABLE)

    def run_batch(self, batch: BatchRun, handler: LoadedHandler) -> None:
        """Run one batch from its start to the `AttemptEnded` of its last item."""
        self._prepare(batch)
        try:
            is_fatal = batch.run(handler, self.invocation, self.capture, self._staged)
        except SystemExit as error:
            self._exit_with(batch, bootstrap.exit_code(error))
        self.current = None
        if is_fatal:
            self.exit(bootstrap.EXIT_UNUSABLE)

    def apply_kept_flags(self, run: AttemptRun | BatchRun) -> None:
        """Apply cancel requests that came while the attempt was between the queue and its start."""
        for flag in list(self._unmatched_flags):
            found = run.find((flag.job_id, flag.attempt))
            if found is not None and not found.cancelled:
                found.request_cancel(flag.reason)
        self._unmatched_flags.clear()

    def exit(self, code: int) -> NoReturn:
        """Send unsent messages and end the process."""
        self._sender.flush_until(FLUSH_TIMEOUT_S)
        os._exit(code)

    def _prepare(self, run: AttemptRun | BatchRun) -> None:
        self.current = run
        self._cancel_signal.install()
        self.capture.emit_early(run)
        if self._unmatched_flags:
            self.apply_kept_flags(run)

    def _call_handler(
        self, run: AttemptRun, handler: LoadedHandler, ended: worker_protocol.AttemptEnded
    ) -> bool:
        """Call user code and write its result into `ended`; return True if this process must exit."""
        found: failures.AttemptFailure
        try:
            try:
                arguments = handler.build_arguments(run.attempt.input, Context(run))
                self._cancel_signal.arm(run)
                value = handler.call(*arguments)
                ended.output = self.invocation.encode_result(run, value)
                return False
            finally:
                self._cancel_signal.disarm()
        except SystemExit as error:
            self._exit_with(run, bootstrap.exit_code(error))
        except BaseException as error:
            self._cancel_signal.disarm()
            found = failures.classify(error)
            failures.clear_frames(error)
        if found.code == "device_out_of_memory":
            failures.empty_device_cache()
        ended.code, ended.message, ended.detail = found.code, found.message, found.detail
        ended.retryable, ended.retry_at = found.retryable, found.retry_at
        return found.is_fatal

    def _exit_with(self, run: AttemptRun | BatchRun, code: int) -> NoReturn:
        """Exit as the handler asked: the worker reports it as a crash; output up to here still counts."""
        if os.getpid() != self._pid:
            os._exit(code)
        run.close()
        self.capture.flush()
        self.exit(code)
