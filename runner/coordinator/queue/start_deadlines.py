"""Effect: ends queued jobs that have not started within their `queue_timeout_s`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Literal, Protocol

from runner.coordinator.jobs.job_registry import JobRegistry, LiveJob
from runner.coordinator.queue.queued_index import due_until_ms
from runner.coordinator.queue.sorted_pairs import SortedPairs
from runner.coordinator.queue.spill import SpillPool
from runner.coordinator.queue.timers import Timers
from runner.coordinator.queue.wait_reasons import WaitReasons
from runner.coordinator.runtime.background_tasks import BackgroundTasks
from runner.coordinator.runtime.clock import Clock
from runner.jobs.job import JobError
from runner.stores.queued_groups import DueTimes, to_millis

log = logging.getLogger(__name__)


class JobFinisher(Protocol):
    """The part of the lifecycle that the queue needs; it is connected later, being built on the queue."""

    def finish(self, live: LiveJob, state: Literal["failed"], error: JobError) -> None:
        """End a queued job in this state."""


class StartDeadlines:
    """Deadlines for the first start of queued jobs, of which one timer watches the earliest.

    Deadlines are kept as (ms, job number): jobs that are spilled have them too. A job that has passed its
    deadline fails with `queue_timeout`.
    """

    def __init__(
        self,
        *,
        registry: JobRegistry,
        spill_pool: SpillPool,
        reasons: WaitReasons,
        timers: Timers,
        clock: Clock,
        due_per_turn: int,
    ) -> None:
        self._registry = registry
        self._spill_pool = spill_pool
        self._reasons = reasons
        self._timers = timers
        self._clock = clock
        #: Set by `connect`, before the first job is queued.
        self._job_finisher: JobFinisher | None = None
        #: Jobs handled in one iteration of the event loop.
        self._due_per_turn = due_per_turn
        self._deadlines = SortedPairs()
        self._timer_due_ms = math.inf
        self._reads = BackgroundTasks()

    def connect(self, job_finisher: JobFinisher) -> None:
        """Set the component that ends the jobs whose deadline has passed."""
        self._job_finisher = job_finisher

    def __len__(self) -> int:
        return len(self._deadlines)

    def load(self, stored: Iterable[DueTimes]) -> None:
        """Load the deadlines of all jobs in the store; called once at the start."""
        for due_times in stored:
            for time_ms, number in zip(due_times.times_ms, due_times.numbers, strict=True):
                self._deadlines.add(time_ms, number)
        self._arm_timer()

    def add(self, number: int, start_by: float) -> None:
        """Set the deadline of job `number` (UTC epoch seconds)."""
        self._deadlines.add(to_millis(start_by), number)
        self._arm_timer()

    def remove(self, number: int, start_by: float) -> None:
        """Remove the deadline of a job that has started or ends."""
        self._deadlines.discard(to_millis(start_by), number)

    def _arm_timer(self) -> None:
        """Set a timer for the first deadline unless one is set for that time or earlier."""
        first_pair = self._deadlines.first_pair
        if first_pair is not None and first_pair[0] < self._timer_due_ms:
            self._timer_due_ms = first_pair[0]
            self._timers.call_at(first_pair[0] / 1000, self._on_due)

    def _on_due(self) -> None:
        """Expire jobs whose deadline has passed; jobs that are not in memory are loaded first.

        At most `due_per_turn` jobs are handled before the loop runs other work.
        """
        self._timer_due_ms = math.inf
        spilled: list[int] = []
        for number in self._deadlines.remove_until(due_until_ms(self._clock.now()), self._due_per_turn):
            live = self._registry.by_number.get(number)
            if live is None:
                spilled.append(number)
            else:
                self._expire(live)
        if not spilled:
            self._arm_timer()
            return
        self._reads.start(self._load_and_expire(spilled))

    async def _load_and_expire(self, numbers: list[int]) -> None:
        await self._spill_pool.load(numbers)
        for number in numbers:
            live = self._registry.by_number.get(number)
            try:
                if live is not None:
                    self._expire(live)
            except Exception:
                log.exception("failed to end job number %d, which missed its queue_timeout_s", number)
        self._arm_timer()

    def _expire(self, live: LiveJob) -> None:
        """Fail a job that is still queued; its deadline may have been moved meanwhile."""
        start_by = live.job.start_by
        # A job that is about to start gets its deadline again if it comes back.
        if live.phase not in ("waiting", "behind", "delayed") or start_by is None:
            return
        if self._clock.now() < start_by:
            self.add(live.job.number, start_by)
            return
        limit_s = live.job.terms.queue_timeout_s
        reason = self._reasons.for_live_job(live)
        message = f"not started within queue_timeout_s={limit_s:g}; reason: {reason}"
        assert self._job_finisher is not None
        self._job_finisher.finish(live, "failed", JobError("queue_timeout", message, False))
