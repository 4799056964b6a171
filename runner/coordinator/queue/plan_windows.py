"""Effect: the first jobs of each class in the planner's state, refilled from those queued behind them."""

from __future__ import annotations

import asyncio
import logging

from gpu.job_class import JobClass
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.jobs import admission
from runner.coordinator.jobs.job_registry import JobRegistry, LiveJob
from runner.coordinator.queue.queued_index import QueuedIndex
from runner.coordinator.queue.spill import QueueBounds, SpillPool
from runner.coordinator.runtime.plan_trigger import PlanTrigger

log = logging.getLogger(__name__)


class PlanWindows:
    """A window of jobs for each class, which bounds the planner's work however long the queue is.

    A window that is half empty is refilled before the next plan; jobs that are not in memory are read from
    the store first. Job numbers, and thus the order in a class, rise with acceptance.
    """

    def __init__(
        self,
        *,
        registry: JobRegistry,
        scheduler_state: SchedulerState,
        index: QueuedIndex,
        spill_pool: SpillPool,
        bounds: QueueBounds,
        plan_trigger: PlanTrigger,
    ) -> None:
        self._registry = registry
        self._scheduler_state = scheduler_state
        self._index = index
        self._spill_pool = spill_pool
        self._bounds = bounds
        self._plan_trigger = plan_trigger
        #: Classes whose window may be short of jobs, in the order in which that was found.
        self._short_classes: dict[JobClass, None] = {}
        #: Classes to refill after rows have been read.
        self._classes_to_read: dict[JobClass, None] = {}
        self._read_task: asyncio.Task[None] | None = None

    @property
    def _size(self) -> int:
        """The size of a window: how many jobs of a class may be in the planner's state."""
        bounds = self._bounds
        return (
            bounds.window_jobs
            if len(self._registry) < bounds.large_backlog_jobs
            else bounds.small_window_jobs
        )

    def accepts_next(self, job_class: JobClass) -> bool:
        """Whether the class's next job goes straight into the window: there is space, and no older job waits
        behind the window."""
        return self._scheduler_state.backlog.count(job_class) < self._size and not self._index.count_ready(
            job_class
        )

    def add(self, live: LiveJob, job_class: JobClass, *, at_front: bool = False) -> None:
        """Put a job into the window of its class; `at_front`: before the jobs in it.

        A job with failed attempts may get a class of its own, see `admission.adjust_class`.
        """
        own_class = admission.adjust_class(live.job, job_class, self._scheduler_state)
        live.mark_waiting(own_class)
        self._scheduler_state.add_waiting(own_class, live.job.number, first=at_front, since=live.job.ready_at)
        self._plan_trigger.wake()

    def on_dispatched(self, job_class: JobClass) -> None:
        """Note that jobs of this class have left its window."""
        if self._index.count_ready(job_class):
            self.request_refill(job_class)

    def request_refill(self, job_class: JobClass) -> None:
        """Refill the window of this class before the next plan if it is short: jobs wait behind it."""
        if (
            job_class not in self._short_classes
            and self._scheduler_state.backlog.count(job_class) <= self._size // 2
        ):
            self._short_classes[job_class] = None
            self._plan_trigger.wake()

    def refill(self) -> None:
        """Refill the windows that are short, high priorities first; called once before each plan."""
        if not self._short_classes:
            return
        short_classes, self._short_classes = self._short_classes, {}
        for job_class in sorted(short_classes, key=_negative_priority):
            self._refill_class(job_class)

    def _refill_class(self, job_class: JobClass) -> None:
        """Move the first jobs behind the window into it, as far as they are in memory.

        The jobs keep their order, so a spilled job stops the refill, and a task reads it from the store.
        """
        waiting_count = self._scheduler_state.backlog.count(job_class)
        if waiting_count > self._size // 2:
            return
        numbers = self._index.first_numbers(job_class, self._size - waiting_count)
        live_jobs = [self._registry.by_number.get(number) for number in numbers]
        present_count = live_jobs.index(None) if None in live_jobs else len(live_jobs)
        present = [live for live in live_jobs[:present_count] if live is not None]
        if present:
            self._index.remove_first(job_class, numbers[:present_count], present[-1].job.ready_at)
            for live in present:
                self.add(live, job_class)
        if present_count < len(numbers):
            self._classes_to_read[job_class] = None
            if self._read_task is None:
                self._read_task = asyncio.get_running_loop().create_task(self._load_and_refill())

    async def _load_and_refill(self) -> None:
        """Read rows until no window is short, high priorities first; at most `rows_per_read` in one read."""
        try:
            while self._classes_to_read:
                numbers: list[int] = []
                classes: list[JobClass] = []
                for job_class in sorted(self._classes_to_read, key=_negative_priority):
                    wanted_count = min(
                        self._size - self._scheduler_state.backlog.count(job_class),
                        self._bounds.rows_per_read - len(numbers),
                    )
                    if wanted_count <= 0 and classes:
                        break
                    classes.append(job_class)
                    numbers += [
                        number
                        for number in self._index.first_numbers(job_class, max(1, wanted_count))
                        if number not in self._registry.by_number
                    ]
                if numbers:
                    await self._spill_pool.load(numbers)
                for job_class in classes:
                    self._classes_to_read.pop(job_class, None)
                    self._refill_class(job_class)
        except Exception:
            # The task's boundary: the next dispatch of a class that is still short requests its refill again.
            log.exception("failed to refill the planner's windows")
        finally:
            self._read_task = None


def _negative_priority(job_class: JobClass) -> int:
    return -job_class.priority
