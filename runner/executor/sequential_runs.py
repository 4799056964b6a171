"""Effect: runs attempts and batches one after another in the main thread."""

from __future__ import annotations

import signal
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from runner.executor.attempt_run import AttemptRun
from runner.executor.attempt_runner import AttemptRunner
from runner.executor.cancel_signal import CancelSignal
from runner.executor.channel import POLL_S
from runner.executor.context import Context
from runner.executor.environment import ExecutorEnvironment
from runner.executor.loader import LoadedHandler
from runner.executor.sender import DEFER_S
from runner.executor.started_run import StartedRun

if TYPE_CHECKING:
    from runner.executor.batch_run import BatchRun


class SequentialRunner:
    """Runs the next staged attempt or batch when the one before has ended.

    `find`, `raise_cancelled`, `flush_due_progress` and `wake` are called by the channel thread, the other
    methods by the main thread.
    """

    def __init__(
        self, attempt_runner: AttemptRunner, cancel_signal: CancelSignal, staged: deque[Any]
    ) -> None:
        self._attempt_runner, self._cancel_signal = attempt_runner, cancel_signal
        #: Attempts and batches staged behind the current one.
        self._staged = staged
        #: The attempt or batch that runs; while the handler loads, the one that caused the load.
        self.current: AttemptRun | BatchRun | None = None
        self.is_unloading = False
        #: Locked while the main thread has nothing to do.
        self._idle_lock = threading.Lock()
        self._idle_lock.acquire()
        self._main = threading.get_ident()
        attempt_runner.capture.follow_runs(lambda: self.current)

    def find(self, key: tuple[str, int]) -> AttemptRun | None:
        """Return the attempt with this key, if it runs or its handler loads."""
        run = self.current
        return None if run is None else run.find(key)

    def raise_cancelled(self, key: tuple[str, int]) -> None:
        """Raise JobCancelled in the main thread, if this attempt still runs."""
        run = self.current
        if run is not None and run.find(key) is not None and not run.closed:
            run.raise_requested = True
            signal.pthread_kill(self._main, signal.SIGUSR1)

    def flush_due_progress(self, now: float) -> float | None:
        """Send progress that is due by `now`; return when the next is due (None: nothing runs).

        Both are monotonic seconds.
        """
        run = self.current
        if run is None:
            return now + DEFER_S if self._staged else None
        run.flush_progress(now)
        if self._staged:
            return now + DEFER_S
        return min(now + POLL_S, run.progress_due) if run.pending_progress else now + POLL_S

    def wake(self) -> None:
        """Have the main thread check for work and for the unload."""
        if self._idle_lock.locked():
            self._idle_lock.release()

    def wait_for_work(self) -> None:
        """Block the main thread until a command has woken it."""
        self._idle_lock.acquire()

    def take_load_owner(self, environment: ExecutorEnvironment) -> AttemptRun | BatchRun | None:
        """Take the first staged attempt or batch, which the load is attributed to; None if none is staged."""
        try:
            self.current = _make_run(self._staged.popleft(), environment)
        except IndexError:
            return None
        self._attempt_runner.capture.emit_early(self.current)
        return self.current

    def serve(self, handler: LoadedHandler, environment: ExecutorEnvironment) -> None:
        """Run the owner of the load and everything staged after it; return once the executor unloads."""
        if self.current is not None:
            self._run(self.current, handler)
        while True:
            try:
                attempts = self._staged.popleft()
            except IndexError:
                if self.is_unloading:
                    return
                self.wait_for_work()
                continue
            self._run(_make_run(attempts, environment), handler)

    def _run(self, run: AttemptRun | BatchRun, handler: LoadedHandler) -> None:
        """Run an attempt or a batch from its start to the `AttemptEnded` of each of its attempts."""
        self.current = run
        self._cancel_signal.install()
        self._attempt_runner.prepare(run)
        started = self._attempt_runner.begin(run)
        try:
            try:
                self._call_handler(run, handler, started)
            finally:
                self._cancel_signal.disarm()
        except BaseException as error:
            # The signal may have raised before the `disarm` above took effect.
            self._cancel_signal.disarm()
            self._attempt_runner.fail(started, error)
        self._attempt_runner.finish(started)
        self.current = None

    def _call_handler(self, run: AttemptRun | BatchRun, handler: LoadedHandler, started: StartedRun) -> None:
        """Call user code and write its outcome; whatever it raises fails the run."""
        invocation = self._attempt_runner.invocation
        if not isinstance(run, AttemptRun):
            run.call_handler(handler, started, invocation)
            return
        arguments = handler.build_arguments(run.attempt.input, Context(run))
        self._cancel_signal.arm(run)
        value = handler.call(*arguments)
        started.endings[run.key].output = invocation.encode_result(run, value, handler.results)


def _make_run(attempts: Any, environment: ExecutorEnvironment) -> AttemptRun | BatchRun:
    """Return the run of a staged attempt, or of a list of attempts, which is a batch."""
    if not isinstance(attempts, list):
        return AttemptRun(attempts, environment)
    # Imported late: most executors run no batches.
    from runner.executor.batch_run import BatchRun

    return BatchRun(attempts, environment)
