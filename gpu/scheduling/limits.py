"""Pure: how many attempts of a handler run at once, in total and in one executor."""

from __future__ import annotations

import math

from gpu.estimates.batch_sizing import BatchSizing
from gpu.job_class import JobClass
from gpu.scheduling.residency import Residency

#: The most attempts that one executor may hold.
STAGE_MAX = 16


class ConcurrencyLimits:
    """The limits, and how much of each handler runs. Staged attempts do not run."""

    def __init__(self, residency: Residency, batch_sizing: BatchSizing) -> None:
        self._residency = residency
        self._batch_sizing = batch_sizing
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

    def busy_executors(self, handler: str) -> int:
        """Return how many executors of a handler load or run."""
        return self._residency.busy_by_handler.get(handler, 0)

    def remaining(self, job_class: JobClass, executors: int = 0, jobs: int = 0) -> float:
        """Return how many more of the handler may run, beside what a plan adds to what runs.

        A plan adds `executors` that it puts to work, and `jobs` that it assigns to any executor. The limit
        counts jobs where an executor runs several at once, else executors.
        """
        limit = self.limit_by_handler.get(job_class.handler)
        if limit is None:
            return math.inf
        if self._batch_sizing.runs_several_jobs(job_class.handler, job_class.version):
            return limit - self._assigned_jobs(job_class.handler) - jobs
        return limit - self.busy_executors(job_class.handler) - executors

    def _assigned_jobs(self, handler: str) -> int:
        return sum(
            len(each.assigned) for each in self._residency.executors.values() if each.key[0] == handler
        )


class PlannedConcurrency:
    """What one plan adds to the running attempts of each handler."""

    def __init__(self, limits: ConcurrencyLimits) -> None:
        self._limits = limits
        self._executors: dict[str, int] = {}
        self._jobs: dict[str, int] = {}

    def add_executor(self, handler: str) -> None:
        """Count an executor of the handler that is going to load or to resume work."""
        self._executors[handler] = self._executors.get(handler, 0) + 1

    def add_jobs(self, handler: str, count: int) -> None:
        """Count jobs of the handler that are going to be assigned to an executor."""
        self._jobs[handler] = self._jobs.get(handler, 0) + count

    def remaining(self, job_class: JobClass) -> float:
        """Return how many more of the handler may run."""
        handler = job_class.handler
        return self._limits.remaining(job_class, self._executors.get(handler, 0), self._jobs.get(handler, 0))

    def is_at_limit(self, job_class: JobClass) -> bool:
        """Return whether the handler's limit is reached."""
        return job_class.handler in self._limits.limit_by_handler and self.remaining(job_class) <= 0
