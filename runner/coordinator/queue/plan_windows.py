"""Effect: the first jobs of each class in the plan's view, refilled from those queued behind them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gpu.job_class import JobClass
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.jobs import admission
from runner.coordinator.jobs.job_registry import JobRegistry, LiveJob
from runner.coordinator.queue.queued_index import QueuedIndex
from runner.coordinator.queue.spill import QueueBounds, SpillPool

log = logging.getLogger(__name__)


class PlanWindows:
    """A window of jobs for each class. One that is half empty is refilled before the next plan; jobs that
    memory does not hold are read from the store first."""

    def __init__(
        self,
        *,
        book: JobRegistry,
        view: SchedulerState,
        lots: QueuedIndex,
        sleep: SpillPool,
        bounds: QueueBounds,
        wake: Callable[[], None],
    ) -> None:
        self._book = book
        self._view = view
        self._lots = lots
        self._sleep = sleep
        self._bounds = bounds
        #: Asks for a turn of the plan.
        self._wake = wake
        #: Classes whose window may be short of jobs, in the order in which that was seen.
        self._low: dict[JobClass, None] = {}
        #: Classes to refill when rows have been read.
        self._unread: dict[JobClass, None] = {}
        self._reader: asyncio.Task[None] | None = None

    @property
    def _size(self) -> int:
        """How many jobs of a class may be in the plan's view."""
        bounds = self._bounds
        return bounds.window_jobs if len(self._book) < bounds.large_backlog_jobs else bounds.small_window_jobs

    def has_room(self, cls: JobClass) -> bool:
        """Whether the class's next job goes straight into the window: it is not full, and none is behind."""
        return self._view.backlog.count(cls) < self._size and not self._lots.count_ready(cls)

    def add(self, live: LiveJob, cls: JobClass, *, first: bool = False) -> None:
        """Put a job into the window of its class; `first`: before those in it."""
        live.phase = "waiting"
        live.job_class = admission.adjust_class(live.job, cls, self._view)
        self._view.add_waiting(live.job_class, live.job.number, first=first, since=live.job.ready_at)
        self._wake()

    def on_dispatched(self, cls: JobClass) -> None:
        """Jobs of this class have left its window."""
        if self._lots.count_ready(cls):
            self.request_refill(cls)

    def request_refill(self, cls: JobClass) -> None:
        """Jobs of this class are behind its window: refill that before the next plan if it is short."""
        if cls not in self._low and self._view.backlog.count(cls) <= self._size // 2:
            self._low[cls] = None
            self._wake()

    def refill(self) -> None:
        """Refill the windows that are short; once before each plan."""
        if not self._low:
            return
        low, self._low = self._low, {}
        for cls in sorted(low, key=_urgency):
            self._refill_class(cls)

    def _refill_class(self, cls: JobClass) -> None:
        """Move the first ones behind into the window, as far as memory holds them."""
        waiting = self._view.backlog.count(cls)
        if waiting > self._size // 2:
            return
        ns = self._lots.first_numbers(cls, self._size - waiting)
        lives = [self._book.by_number.get(n) for n in ns]
        known = lives.index(None) if None in lives else len(lives)
        present = [live for live in lives[:known] if live is not None]
        if present:
            self._lots.remove_first(cls, ns[:known], present[-1].job.ready_at)
            for live in present:
                self.add(live, cls)
        if known < len(ns):
            self._unread[cls] = None
            if self._reader is None:
                self._reader = asyncio.get_running_loop().create_task(self._read_rows())

    async def _read_rows(self) -> None:
        """Take in rows until no window is short; those of high priority first."""
        try:
            while self._unread:
                ns: list[int] = []
                classes: list[JobClass] = []
                for cls in sorted(self._unread, key=_urgency):
                    room = min(
                        self._size - self._view.backlog.count(cls), self._bounds.rows_per_read - len(ns)
                    )
                    if room <= 0 and classes:
                        break
                    classes.append(cls)
                    ns += [
                        n
                        for n in self._lots.first_numbers(cls, max(1, room))
                        if n not in self._book.by_number
                    ]
                if ns:
                    await self._sleep.load(ns)
                for cls in classes:
                    self._unread.pop(cls, None)
                    self._refill_class(cls)
        except Exception:
            # The task's boundary: a class that is still short asks again when its next job has left.
            log.exception("queued jobs could not be moved into the plan's view")
        finally:
            self._reader = None


def _urgency(cls: JobClass) -> int:
    return -cls.priority
