"""Effect: where a queued job waits: for its handler, its time or its device."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from heapq import merge
from typing import Literal

from gpu.job_class import JobClass
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.jobs import admission
from runner.coordinator.jobs.job_registry import JobRegistry, LiveJob
from runner.coordinator.queue.active_handlers import ActiveHandlers
from runner.coordinator.queue.plan_windows import PlanWindows
from runner.coordinator.queue.queued_index import QueuedGroup, QueuedIndex, due_until_ms
from runner.coordinator.queue.spill import JobFinder, QueueBounds, RowReader, SpillPool
from runner.coordinator.queue.start_deadlines import StartDeadlines
from runner.coordinator.queue.timers import Timers
from runner.coordinator.queue.wait_reasons import WaitReasons
from runner.coordinator.storage.journal import Journal
from runner.handlers.spec import HandlerSpec
from runner.jobs.job import Job, JobError
from runner.stores.queued_groups import StoredGroup, group_key


class Waiting:
    """The queued jobs: where each of them waits.

    The first jobs of each class are in the plan's view. Behind them, and where a time has to come first,
    only numbers are kept for sure (`Lots`); the jobs themselves may be in memory or asleep in the store.
    """

    def __init__(
        self,
        *,
        book: JobRegistry,
        view: SchedulerState,
        journal: Journal,
        timers: Timers,
        now: Callable[[], float],
        wake: Callable[[], None],
        give_up: Callable[[LiveJob, JobError], None],
        rows: RowReader,
        find: JobFinder,
        bounds: QueueBounds,
    ) -> None:
        self._book = book
        self._view = view
        self._timers = timers
        self._now = now
        self._due_max = bounds.due_per_turn
        self.handlers = ActiveHandlers()
        self._lots = lots = QueuedIndex(self.handlers.class_of)
        self.sleep = SpillPool(
            registry=book, index=lots, journal=journal, read_rows=rows, find_job=find, bounds=bounds
        )
        self.windows = PlanWindows(
            registry=book, view=view, index=lots, spill_pool=self.sleep, bounds=bounds, request_plan=wake
        )
        self.reasons = WaitReasons(view=view, handlers=self.handlers, now=now)
        self._deadlines = StartDeadlines(
            registry=book,
            spill_pool=self.sleep,
            reasons=self.reasons,
            timers=timers,
            now=now,
            fail_job=give_up,
            due_per_turn=bounds.due_per_turn,
        )

    # Handlers.

    def described(self, specs: Mapping[str, HandlerSpec]) -> None:
        """The handlers are known anew: who waited for one may go on, and the jobs of a handler that is
        another now wait for that one, in the order in which they waited."""
        before, self.handlers.specs = self.handlers.specs, specs
        for spec in specs.values():
            if spec.state == "ok":
                admission.apply_handler_limits(spec, self._view)
        self._lots.reclassify()
        for n in self._displaced(before):
            self.place(self._book.by_number[n])
        for cls in self._lots.classes():
            self.windows.request_refill(cls)
        self.windows.refill()

    def _displaced(self, before: Mapping[str, HandlerSpec]) -> list[int]:
        """The jobs in view of handlers that are not what they were `before`, taken out of their lines."""
        lines: list[list[int]] = []
        for cls in self._view.backlog.classes():
            if not cls.is_prewarm and self.handlers.specs.get(cls.handler) != before.get(cls.handler):
                lines.append(self._view.backlog.by_class[cls].peek(self._view.backlog.count(cls)))
                for n in lines[-1]:
                    self._view.remove_waiting(cls, n)
        # Two lines may become one: the older job goes first then.
        return list(merge(*lines))

    # Coming and going.

    def load(self, stored: Sequence[StoredGroup]) -> None:
        """Take in all that waits in the store."""
        for lot in stored:
            self._lots.load_group(lot)
        for each in list(self._lots):
            self._arm(each)
        self._deadlines.load(lot.start_deadlines for lot in stored)

    def place(self, live: LiveJob, cls: JobClass | None = None, *, first: bool = False) -> None:
        """Put a queued job where it has to wait: for its handler, its time or its device.

        `cls` is its class where that is at hand. `first`: before those that wait already; it has waited its
        turn once.
        """
        job = live.job
        if job.start_by is not None:
            self._deadlines.add(job.number, job.start_by)
        if job.ready_at > self._now():
            live.phase = "delayed"
            self._arm(self._lots.add_delayed(job))
            self.sleep.maybe_spill(live)
            return
        cls = cls or self.handlers.class_of(group_key(job))
        if cls is not None and (first or self.windows.accepts_next(cls)):
            self.windows.add(live, cls, first=first)
            return
        live.phase = "behind"
        lot = self._lots.add_ready(job)
        if lot.job_class is not None:
            self.windows.request_refill(lot.job_class)
        self.sleep.maybe_spill(live)

    def leave(self, live: LiveJob) -> None:
        """The job waits no more: it is about to start or to end, or was never accepted."""
        job = live.job
        if job.start_by is not None:
            self._deadlines.remove(job.number, job.start_by)
        if live.phase == "waiting" and live.job_class is not None:
            self._view.remove_waiting(live.job_class, job.number)
            self.windows.on_dispatched(live.job_class)
        elif live.phase in ("behind", "delayed", "asleep"):
            self._lots.remove(job)

    # What is said of a job.

    def where(self, job: Job) -> Literal["behind", "delayed"] | None:
        """How a job waits that is not in memory; None where it does not."""
        return self._lots.phase_of(job)

    def tally(self) -> Iterator[tuple[str, str, int, float | None]]:
        """(queue, reason, jobs, since when the first of them is ready) of all that waits in line."""
        for cls, line in self._view.backlog.by_class.items():
            if cls.is_prewarm:
                continue
            since = self._book.by_number[line.first].job.ready_at
            yield cls.queue, self.reasons.for_class(cls, cls.queue), len(line), since
        for lot in self._lots:
            queue, cls_, ready = lot.key.queue, lot.job_class, len(lot.ready)
            if ready:
                why = "waiting_for_handler" if cls_ is None else self.reasons.for_class(cls_, queue)
                yield queue, why, ready, None if cls_ in self._view.backlog.by_class else lot.ready_since
            for why, column in lot.delayed.items():
                if column:
                    yield queue, why, len(column), None

    def outside_by_tenant(self) -> Counter[str]:
        """How many jobs of each tenant wait outside the plan's view."""
        return self._lots.count_by_tenant()

    def ahead(self, cls: JobClass, n: int) -> int:
        """How many wait outside the plan's view and go before job `n` of this class."""
        lane = self._view.residency.device_pool(cls)
        count = 0
        for lot in self._lots:
            other = lot.job_class
            if (
                other is None
                or other.priority < cls.priority
                or self._view.residency.device_pool(other) is not lane
            ):
                continue
            count += len(lot.ready) if other.priority > cls.priority else lot.ready.count_before(0, n)
        return count

    # Moments.

    def _arm(self, lot: QueuedGroup) -> None:
        """Set the timer for the first of a lot's delayed jobs."""
        at = lot.next_due_ms
        if at is not None and at < lot.timer_due_ms:
            lot.timer_due_ms = at
            self._timers.call_at(at / 1000, partial(self._due, lot))

    def _due(self, lot: QueuedGroup) -> None:
        lot.timer_due_ms = math.inf
        for n in self._lots.take_due(lot, due_until_ms(self._now()), self._due_max):
            live = self._book.by_number.get(n)
            if live is not None:
                live.job.reason = None
                self.place(live)
            else:
                ripe = self._lots.make_ready(lot.key, n)
                if ripe.job_class is not None:
                    self.windows.request_refill(ripe.job_class)
        self._arm(lot)
