"""Pure: how many attempts of a handler run at once, in all and in one executor."""

from __future__ import annotations

import math

from gpu.estimates.batch_sizing import BatchSizing
from gpu.job_class import JobClass
from gpu.scheduling.residency import Residency

#: The most attempts that one executor may hold.
STAGE_MAX = 16


class ConcurrencyLimits:
    """The limits, and what runs of each handler. Attempts that are staged do not run."""

    def __init__(self, residency: Residency, batch_sizing: BatchSizing) -> None:
        self._residency = residency
        self._batch_sizing = batch_sizing
        #: How many attempts of a handler run at once; one that has no limit is not listed.
        self.limit_by_handler: dict[str, int] = {}
        #: By handler and version how many attempts an executor may hold at once; 1 where it is not listed.
        self.stage_depths: dict[tuple[str, str], int] = {}

    def set_handler_limit(self, handler: str, limit: int | None) -> None:
        """How many attempts of a handler run at once, everywhere; None: any number."""
        if limit is None:
            self.limit_by_handler.pop(handler, None)
        else:
            self.limit_by_handler[handler] = limit

    def set_stage_depth(self, handler: str, version: str, depth: int) -> None:
        """How many attempts an executor of it may hold at once: 1 to 16."""
        self.stage_depths[handler, version] = min(max(depth, 1), STAGE_MAX)

    def busy_executors(self, handler: str) -> int:
        """How many executors of a handler load or run."""
        return self._residency.busy_by_handler.get(handler, 0)

    def remaining(self, job_class: JobClass, executors: int = 0, jobs: int = 0) -> float:
        """How many more of the handler may run, beside what a plan adds to what runs: executors that it sets
        to work, and jobs that it hands to any. Where several run at once in an executor, jobs count."""
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
    """What one plan adds to what runs of each handler."""

    def __init__(self, limits: ConcurrencyLimits) -> None:
        self._limits = limits
        self._executors: dict[str, int] = {}
        self._jobs: dict[str, int] = {}

    def add_executor(self, handler: str) -> None:
        """An executor of the handler is to load or to take up work."""
        self._executors[handler] = self._executors.get(handler, 0) + 1

    def add_jobs(self, handler: str, count: int) -> None:
        """Jobs of the handler are to be handed to an executor."""
        self._jobs[handler] = self._jobs.get(handler, 0) + count

    def remaining(self, job_class: JobClass) -> float:
        """How many more of the handler may run."""
        handler = job_class.handler
        return self._limits.remaining(job_class, self._executors.get(handler, 0), self._jobs.get(handler, 0))

    def is_at_limit(self, job_class: JobClass) -> bool:
        """Whether as many of the handler run as may."""
        return job_class.handler in self._limits.limit_by_handler and self.remaining(job_class) <= 0
