"""Effect: reports starts of attempts in one executor and enforces their timeouts.

Times are monotonic seconds, read from the executor's shared page; only reported starts are UTC epoch seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from runner.protocol import worker as worker_protocol
from runner.protocol.worker import CancelAttempt
from runner.worker.processes.executor_process import ExecutorProcess
from runner.worker.processes.page_figures import PageFigures
from runner.worker.supervision import deadlines
from runner.worker.supervision.attempts import AssignedAttempt, AttemptQueue
from runner.worker.supervision.termination import Termination

#: A warm attempt that ends within this time, in seconds, gets no `AttemptStarted`.
START_REPORT_S = 0.02
#: Message of attempts that are interrupted by a shutdown.
SHUTDOWN_MESSAGE = "the server is shutting down"


class DeadlineMonitor:
    """Monitors an executor that has loaded; `send` sends reliably."""

    def __init__(
        self,
        process: ExecutorProcess,
        attempts: AttemptQueue,
        termination: Termination,
        send: Callable[[bytes], None],
    ) -> None:
        self._process, self._attempts, self._termination, self._send = process, attempts, termination, send

    def check(self, now: float, *, is_stopping: bool) -> float | None:
        """Report starts and apply deadlines that are due; return when to check again (monotonic), or None."""
        if not self._attempts.entries:
            return None
        figures = self._process.read_page()
        running = self._attempts.running(figures)
        if not running:
            return now + START_REPORT_S
        moments = [self._check_attempt(entry, figures, now, is_stopping) for entry in running]
        return min((at for at in moments if at is not None), default=None)

    def _check_attempt(
        self, entry: AssignedAttempt, figures: PageFigures, now: float, is_stopping: bool
    ) -> float | None:
        """Report the start of an attempt and end it if a deadline is due; return when to check it again."""
        # A batch starts as one, with the ordinal of its last attempt.
        ordinal = max(self._attempts.ordinal_of(entry), figures.started)
        if self._attempts.slots > 1:
            started_mono = entry.started_mono or figures.started_mono
            figures, ordinal = (
                PageFigures(1, started_mono, 0, self._process.last_active_mono(entry.slot_index)),
                1,
            )
        if not entry.is_start_sent:
            if figures.finished >= ordinal or now - figures.started_mono < START_REPORT_S:
                return now + START_REPORT_S
            self.report_start(entry, time.time() - (now - figures.started_mono))
        if entry.key in self._termination.ladders:
            return None
        batch_keys = [entry.key, *(one.key for one in self.batch_not_ending(entry))]
        if is_stopping:
            self._termination.end_attempts(batch_keys, "interrupted", SHUTDOWN_MESSAGE, entry.attempt.grace_s)
        due = deadlines.next_deadline(figures, ordinal, entry.attempt)
        if due is not None and now >= due.at_mono:
            self._termination.end_attempts(batch_keys, due.code, due.message, 0.0)
            return None
        return due.at_mono if due else None

    def report_start(self, entry: AssignedAttempt, at: float) -> None:
        """Report that an attempt started at `at` (UTC epoch seconds)."""
        entry.is_start_sent = True
        self._send(worker_protocol.encode(worker_protocol.AttemptStarted(*entry.key, at)))

    def end_attempt(self, entry: AssignedAttempt, command: CancelAttempt) -> None:
        """End a running attempt.

        An attempt of a batch is only asked to stop, until all attempts of the batch must end or the end is
        forced.
        """
        flag_only = command.grace_s >= 0 and bool(self.batch_not_ending(entry))
        self._termination.end_attempts(
            [entry.key], command.code, command.message, command.grace_s, flag_only=flag_only
        )

    def batch_not_ending(self, entry: AssignedAttempt) -> list[AssignedAttempt]:
        """Return the attempts of its batch that were not asked to end."""
        ladders = self._termination.ladders
        return [one for one in self._attempts.batch_of(entry) if one is not entry and one.key not in ladders]
