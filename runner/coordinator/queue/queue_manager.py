"""Effect: queued jobs, waiting for their handler, for their start time or for a device.

Everything here runs on the event loop and changes memory only; the caller records changes in the journal.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
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
from runner.coordinator.queue.spill import QueueBounds, RowReader, SpillPool
from runner.coordinator.queue.start_deadlines import JobFinisher, StartDeadlines
from runner.coordinator.queue.timers import Timers
from runner.coordinator.queue.wait_reasons import WaitReasons
from runner.coordinator.runtime.clock import Clock
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.coordinator.storage.journal import Journal
from runner.handlers.spec import HandlerSpec
from runner.jobs.job import Job
from runner.jobs.traits import decode_traits
from runner.stores.queued_groups import StoredGroup, group_key


class QueueManager:
    """Holds every queued job, with its reason to wait.

    The first jobs of each class are in the planner's `SchedulerState`. Jobs behind them, and jobs whose start
    time has not come, are kept as numbers in the `QueuedIndex`; the job itself may be in memory or spilled to
    the store.
    """

    def __init__(
        self,
        *,
        registry: JobRegistry,
        scheduler_state: SchedulerState,
        journal: Journal,
        timers: Timers,
        clock: Clock,
        plan_trigger: PlanTrigger,
        row_reader: RowReader,
        bounds: QueueBounds,
    ) -> None:
        self._registry = registry
        self._scheduler_state = scheduler_state
        self._timers = timers
        self._clock = clock
        self._due_per_turn = bounds.due_per_turn
        self.handlers = ActiveHandlers()
        self._index = index = QueuedIndex(self.handlers.class_of)
        self.spill_pool = SpillPool(
            registry=registry,
            index=index,
            journal=journal,
            row_reader=row_reader,
            clock=clock,
            bounds=bounds,
        )
        self.windows = PlanWindows(
            registry=registry,
            scheduler_state=scheduler_state,
            index=index,
            spill_pool=self.spill_pool,
            bounds=bounds,
            plan_trigger=plan_trigger,
        )
        self.reasons = WaitReasons(scheduler_state=scheduler_state, handlers=self.handlers, clock=clock)
        self._deadlines = StartDeadlines(
            registry=registry,
            spill_pool=self.spill_pool,
            reasons=self.reasons,
            timers=timers,
            clock=clock,
            due_per_turn=bounds.due_per_turn,
        )

    def connect(self, job_finisher: JobFinisher) -> None:
        """Set the component that ends the jobs whose deadline has passed; called before the first job is
        queued."""
        self._deadlines.connect(job_finisher)

    # Handlers.

    def set_handlers(self, specs: Mapping[str, HandlerSpec]) -> None:
        """Replace the handler specs.

        Jobs that waited for a handler become ready if it now exists; jobs of a changed handler wait for its
        new version in their old order. Attempts that run are not touched.
        """
        previous, self.handlers.specs = self.handlers.specs, specs
        for spec in specs.values():
            if spec.state == "ok":
                admission.apply_handler_limits(spec, self._scheduler_state)
        changed = {name for name in {*previous, *specs} if previous.get(name) != specs.get(name)}
        self._index.reclassify(changed)
        for number in self._remove_changed(previous):
            self.enqueue(self._registry.by_number[number])
        for job_class in self._index.classes():
            self.windows.request_refill(job_class)
        self.windows.refill()

    def _remove_changed(self, previous: Mapping[str, HandlerSpec]) -> list[int]:
        """Remove the jobs of changed handlers from the planner; return their numbers in queue order."""
        numbers_by_class: list[list[int]] = []
        for job_class in self._scheduler_state.backlog.classes():
            if not job_class.is_prewarm and self.handlers.specs.get(job_class.handler) != previous.get(
                job_class.handler
            ):
                numbers_by_class.append(
                    self._scheduler_state.backlog.by_class[job_class].peek(
                        self._scheduler_state.backlog.count(job_class)
                    )
                )
                for number in numbers_by_class[-1]:
                    self._scheduler_state.remove_waiting(job_class, number)
        # Two classes may become one, in which the older job is first.
        return list(merge(*numbers_by_class))

    # Enqueue and dequeue.

    def load_stored(self, stored: Sequence[StoredGroup]) -> None:
        """Load all jobs that are queued in the store, as numbers; called once, before a job is added."""
        for stored_group in stored:
            self._index.load_group(stored_group)
            traits = decode_traits(stored_group.key.traits)
            self._registry.names.count(
                stored_group.key.handler, traits.tenant, traits.model, stored_group.job_count
            )
        for group in list(self._index):
            self._arm_timer(group)
        self._deadlines.load(stored_group.start_deadlines for stored_group in stored)

    def enqueue(self, live: LiveJob, job_class: JobClass | None = None, *, at_front: bool = False) -> None:
        """Queue a job to wait for its handler, its start time or a device.

        `job_class` is the job's class if the caller knows it. `at_front` puts the job before those that wait
        already, because it has been at the front before. A job behind its window may be spilled once it is
        durable.
        """
        job = live.job
        if job.reason is None:
            # It waits for no time: the clock was ahead when it became ready.
            job.ready_at = min(job.ready_at, self._clock.now())
        if job.start_by is not None:
            self._deadlines.add(job.number, job.start_by)
        if job.ready_at > self._clock.now():
            live.mark_delayed()
            self._arm_timer(self._index.add_delayed(job))
            self.spill_pool.maybe_spill(live)
            return
        job_class = job_class or self.handlers.class_of(group_key(job))
        if job_class is not None and (at_front or self.windows.accepts_next(job_class)):
            self.windows.add(live, job_class, at_front=at_front)
            return
        live.mark_behind()
        group = self._index.add_ready(job)
        if group.job_class is not None:
            self.windows.request_refill(group.job_class)
        self.spill_pool.maybe_spill(live)

    def dequeue(self, live: LiveJob) -> None:
        """Remove a job from its queue: it is about to start or to end, or it was never accepted.

        Does nothing for a job that an executor holds.
        """
        job = live.job
        if job.start_by is not None:
            self._deadlines.remove(job.number, job.start_by)
        if live.phase == "waiting" and live.job_class is not None:
            self._scheduler_state.remove_waiting(live.job_class, job.number)
            self.windows.on_dispatched(live.job_class)
        elif live.phase in ("behind", "delayed", "spilled"):
            self._index.remove(job)

    def remove_stored(self, job: Job) -> None:
        """Remove a queued job that is not in memory from its queue."""
        if job.start_by is not None:
            self._deadlines.remove(job.number, job.start_by)
        self._index.remove(job)

    def discard_stored(self, number: int) -> None:
        """Remove a queued job of which only the number is known: its row can't be read."""
        self._index.discard_number(number)

    # Reports on queued jobs.

    def stored_phase(self, job: Job) -> Literal["behind", "delayed"] | None:
        """How a job that is not in memory waits; None if it is not queued."""
        return self._index.phase_of(job)

    def counts_by_reason(self, only: str | None = None) -> Iterator[tuple[str, str, int, float | None]]:
        """Yield (queue, reason, number of jobs, time at which the first became ready) for all queued jobs, or
        for those of the queue `only`."""
        known: dict[Hashable, str] = {}
        for job_class, backlog in self._scheduler_state.backlog.by_class.items():
            queue = job_class.queue
            if (only is not None and queue != only) or job_class.is_prewarm:
                continue
            since = self._registry.by_number[backlog.first].job.ready_at
            yield queue, self.reasons.for_class(job_class, queue, known), len(backlog), since
        for group in self._index:
            queue = group.key.queue
            if only is not None and queue != only:
                continue
            group_class, ready_count = group.job_class, len(group.ready)
            if ready_count:
                reason = (
                    "waiting_for_handler"
                    if group_class is None
                    else self.reasons.for_class(group_class, queue, known)
                )
                yield (
                    queue,
                    reason,
                    ready_count,
                    None if group_class in self._scheduler_state.backlog.by_class else group.ready_since,
                )
            for reason, pairs in group.delayed.items():
                if pairs:
                    yield queue, reason, len(pairs), None

    def unplanned_by_tenant(self) -> Counter[str]:
        """Count the jobs of each tenant that wait outside the planner's state."""
        return self._index.count_by_tenant()

    def jobs_ahead(self, job_class: JobClass, number: int) -> int:
        """Count the jobs outside the planner's state that go before job `number` of this class.

        Those are jobs for the same devices with a higher priority, or older ones of the same priority.
        """
        pool = self._scheduler_state.residency.device_pool(job_class)
        count = 0
        for group in self._index:
            other_class = group.job_class
            if (
                other_class is None
                or other_class.priority < job_class.priority
                or self._scheduler_state.residency.device_pool(other_class) is not pool
            ):
                continue
            count += (
                len(group.ready)
                if other_class.priority > job_class.priority
                else group.ready.count_before(0, number)
            )
        return count

    # Due times.

    def _arm_timer(self, group: QueuedGroup) -> None:
        """Set the timer for the first delayed job of a group."""
        due_ms = group.next_due_ms
        if due_ms is not None and due_ms < group.timer_due_ms:
            group.timer_due_ms = due_ms
            self._timers.call_at(due_ms / 1000, partial(self._on_due, group))

    def _on_due(self, group: QueuedGroup) -> None:
        """Make the jobs of a group ready whose start time has come, at most `due_per_turn` of each reason."""
        group.timer_due_ms = math.inf
        for number in self._index.take_due(group, due_until_ms(self._clock.now()), self._due_per_turn):
            live = self._registry.by_number.get(number)
            if live is not None:
                live.job.reason = None
                self.enqueue(live)
            else:
                ready_group = self._index.make_ready(group.key, number)
                if ready_group.job_class is not None:
                    self.windows.request_refill(ready_group.job_class)
        self._arm_timer(group)
