"""Effect: ends queued jobs that have not started within their `queue_timeout_s`."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable

from runner.coordinator.jobs.job_registry import JobRegistry, LiveJob
from runner.coordinator.queue.queued_index import due_until_ms
from runner.coordinator.queue.sorted_pairs import SortedPairs
from runner.coordinator.queue.spill import SpillPool
from runner.coordinator.queue.timers import Timers
from runner.coordinator.queue.wait_reasons import WaitReasons
from runner.jobs.job import JobError
from runner.stores.queued_groups import DueTimes, to_millis

log = logging.getLogger(__name__)


class StartDeadlines:
    """Until when jobs have to start that never did."""

    def __init__(
        self,
        *,
        book: JobRegistry,
        sleep: SpillPool,
        reasons: WaitReasons,
        timers: Timers,
        now: Callable[[], float],
        give_up: Callable[[LiveJob, JobError], None],
        due_max: int,
    ) -> None:
        self._book = book
        self._sleep = sleep
        self._reasons = reasons
        self._timers = timers
        self._now = now
        #: Ends a job that waited for too long.
        self._give_up = give_up
        #: So many are handled in one turn of the loop.
        self._due_max = due_max
        self._deadlines = SortedPairs()
        self._armed_at = math.inf
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._deadlines)

    def load(self, stored: Iterable[DueTimes]) -> None:
        """Take in the deadlines of all jobs in the store."""
        for marks in stored:
            for at, n in zip(marks.times_ms, marks.numbers, strict=True):
                self._deadlines.add(at, n)
        self._arm()

    def add(self, n: int, start_by: float) -> None:
        """Job `n` has to start until then (UTC epoch seconds)."""
        self._deadlines.add(to_millis(start_by), n)
        self._arm()

    def remove(self, n: int, start_by: float) -> None:
        """Job `n` has started, or ends."""
        self._deadlines.discard(to_millis(start_by), n)

    def _arm(self) -> None:
        head = self._deadlines.first_pair
        if head is not None and head[0] < self._armed_at:
            self._armed_at = head[0]
            self._timers.call_at(head[0] / 1000, self._on_due)

    def _on_due(self) -> None:
        """The longest wait of some jobs is over. Those not in memory have to be read before they end."""
        self._armed_at = math.inf
        unread: list[int] = []
        for n in self._deadlines.remove_until(due_until_ms(self._now()), self._due_max):
            live = self._book.by_number.get(n)
            if live is None:
                unread.append(n)
            else:
                self._end(live)
        if not unread:
            self._arm()
            return
        task = asyncio.get_running_loop().create_task(self._read_and_end(unread))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read_and_end(self, ns: list[int]) -> None:
        await self._sleep.load(ns)
        for n in ns:
            live = self._book.by_number.get(n)
            try:
                if live is not None:
                    self._end(live)
            except Exception:
                log.exception("a job that waited too long could not be ended: number %d", n)
        self._arm()

    def _end(self, live: LiveJob) -> None:
        start_by = live.job.start_by
        # One that is about to start gets its deadline again if it comes back.
        if live.phase not in ("waiting", "behind", "delayed") or start_by is None:
            return
        if self._now() < start_by:
            self.add(live.job.number, start_by)
            return
        limit_s = live.job.terms.queue_timeout_s
        reason = self._reasons.for_live_job(live)
        message = f"not started within queue_timeout_s={limit_s:g}; it waited with reason {reason}"
        self._give_up(live, JobError("queue_timeout", message, False))
