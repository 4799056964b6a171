"""Effect: heeds the clocks of what runs in one executor: tells its start, and ends it at its limits."""

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

#: A warm attempt that ends within this is not worth a `Started`.
START_TOLD_S = 0.02
STOPPING = "the server is shutting down"


class Oversight:
    """Of an executor that has loaded. `keep` sends up for good."""

    def __init__(
        self, process: ExecutorProcess, line: AttemptQueue, ending: Termination, keep: Callable[[bytes], None]
    ) -> None:
        self._process, self._line, self._ending, self._keep = process, line, ending, keep

    def check(self, now: float, *, is_stopping: bool) -> float | None:
        """Do what is due; when to look again."""
        if not self._line.entries:
            return None
        figures = self._process.read_page()
        running = self._line.running(figures)
        if not running:
            return now + START_TOLD_S
        moments = [self._check(entry, figures, now, is_stopping) for entry in running]
        return min((at for at in moments if at is not None), default=None)

    def _check(
        self, entry: AssignedAttempt, figures: PageFigures, now: float, is_stopping: bool
    ) -> float | None:
        # A batch starts as one, with the ordinal of its last.
        ordinal = max(self._line.ordinal_of(entry), figures.started)
        if self._line.slots > 1:
            begun_mono = entry.started_mono or figures.started_mono
            figures, ordinal = (
                PageFigures(1, begun_mono, 0, self._process.last_active_mono(entry.slot_index)),
                1,
            )
        if not entry.is_start_sent:
            if figures.finished >= ordinal or now - figures.started_mono < START_TOLD_S:
                return now + START_TOLD_S
            self.tell_start(entry, time.time() - (now - figures.started_mono))
        if entry.key in self._ending.ladders:
            return None
        together = [entry.key, *(one.key for one in self.spared(entry))]
        if is_stopping:
            self._ending.end_attempts(together, "interrupted", STOPPING, entry.attempt.grace_s)
        due = deadlines.next_deadline(figures, ordinal, entry.attempt)
        if due is not None and now >= due.at_mono:
            self._ending.end_attempts(together, due.code, due.message, 0.0)
            return None
        return due.at_mono if due else None

    def tell_start(self, entry: AssignedAttempt, at: float) -> None:
        """The coordinator is to know that it runs."""
        entry.is_start_sent = True
        self._keep(worker_protocol.encode(worker_protocol.AttemptStarted(*entry.key, at)))

    def end(self, entry: AssignedAttempt, order: CancelAttempt) -> None:
        """End one that runs; of a batch it is only told so, until the last one is to end or it is forced."""
        is_soft = order.grace_s >= 0 and bool(self.spared(entry))
        self._ending.end_attempts([entry.key], order.code, order.message, order.grace_s, flag_only=is_soft)

    def spared(self, entry: AssignedAttempt) -> list[AssignedAttempt]:
        """Those of its batch that nobody asked to end."""
        ladders = self._ending.ladders
        return [one for one in self._line.batch_of(entry) if one is not entry and one.key not in ladders]
