"""Pure: how much of each handler runs, and how much may run.

Counts are kept by key, which today is always a handler's name.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from gpu.estimates.batch_sizing import BatchSizing
from gpu.job_class import JobClass

#: The most attempts that one executor may hold.
STAGE_MAX = 16


class RunningCount(NamedTuple):
    """How much of one key runs."""

    #: Executors that load or run.
    executors: int = 0
    #: Jobs that are assigned to executors and have not ended, staged ones included.
    jobs: int = 0


NOTHING_RUNS = RunningCount()


class RunningCounts:
    """What runs of each key. Keys of which nothing runs take no memory."""

    def __init__(self) -> None:
        self._counts: dict[str, RunningCount] = {}

    def get(self, key: str) -> RunningCount:
        """Return how much of the key runs."""
        return self._counts.get(key, NOTHING_RUNS)

    def add(self, key: str, *, executors: int = 0, jobs: int = 0) -> None:
        """Add to the counts of the key; negative numbers subtract."""
        count = self._counts.get(key, NOTHING_RUNS)
        changed = RunningCount(count.executors + executors, count.jobs + jobs)
        if changed == NOTHING_RUNS:
            self._counts.pop(key, None)
        else:
            self._counts[key] = changed


class ConcurrencyLimits:
    """How much of each handler may run at once, and how much one executor may hold."""

    def __init__(self, batch_sizing: BatchSizing) -> None:
        """Start without limits and with nothing running."""
        self._batch_sizing = batch_sizing
        #: What runs of each handler. The residency counts executors, the scheduler's state counts jobs.
        self.running = RunningCounts()
        #: How many attempts of a handler may run at once; a handler without a limit is not listed.
        self.limit_by_handler: dict[str, int] = {}
        #: How many attempts an executor may hold at once, by handler and version; 1 where not listed.
        self.stage_depths: dict[tuple[str, str], int] = {}

    def set_handler_limit(self, handler: str, limit: int | None) -> None:
        """Set how many attempts of a handler may run at once on all devices; None: any number."""
        if limit is None:
            self.limit_by_handler.pop(handler, None)
        else:
            self.limit_by_handler[handler] = limit

    def set_stage_depth(self, handler: str, version: str, depth: int) -> None:
        """Set how many attempts an executor of a handler version may hold at once: 1 to 16."""
        self.stage_depths[handler, version] = min(max(depth, 1), STAGE_MAX)

    def remaining(self, job_class: JobClass, planned: RunningCount = NOTHING_RUNS) -> float:
        """Return how many more of the class's handler may run; inf without a limit.

        The number is 0 or less at the limit: below 0 where the limit was lowered while more ran. The limit
        counts jobs where an executor runs several at once; elsewhere it counts executors, because staged
        jobs do not run. `planned` is what a plan adds to what runs.
        """
        handler = job_class.handler
        limit = self.limit_by_handler.get(handler)
        if limit is None:
            return math.inf
        running = self.running.get(handler)
        if self._batch_sizing.runs_several_jobs(handler, job_class.version):
            return limit - running.jobs - planned.jobs
        return limit - running.executors - planned.executors

    def is_at_limit(self, job_class: JobClass, planned: RunningCount = NOTHING_RUNS) -> bool:
        """Return whether no more of the class's handler may run."""
        return job_class.handler in self.limit_by_handler and self.remaining(job_class, planned) <= 0


class PlannedConcurrency:
    """What one plan adds to the running attempts of each handler."""

    def __init__(self, limits: ConcurrencyLimits) -> None:
        """Start a plan that adds nothing yet."""
        self._limits = limits
        self._planned = RunningCounts()

    def add_executor(self, handler: str) -> None:
        """Count an executor of the handler that is going to load or to resume work."""
        self._planned.add(handler, executors=1)

    def add_jobs(self, handler: str, count: int) -> None:
        """Count jobs of the handler that are going to be assigned to an executor."""
        self._planned.add(handler, jobs=count)

    def remaining(self, job_class: JobClass) -> float:
        """Return how many more of the class's handler may run; inf without a limit."""
        return self._limits.remaining(job_class, self._planned.get(job_class.handler))

    def is_at_limit(self, job_class: JobClass) -> bool:
        """Return whether no more of the class's handler may run."""
        return self._limits.is_at_limit(job_class, self._planned.get(job_class.handler))
