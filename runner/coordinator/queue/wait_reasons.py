"""Effect: the reasons why jobs wait, as of now."""

from __future__ import annotations

from collections.abc import Hashable

from gpu.job_class import JobClass
from gpu.planning.actions import Plan
from gpu.planning.explain import find_wait_kind, find_wait_reason
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.queue.active_handlers import ActiveHandlers
from runner.coordinator.runtime.clock import Clock
from runner.jobs.job import Job
from runner.stores.queued_groups import group_key


class WaitReasons:
    """Finds why each job waits: its handler, its start time, its queue, or the last plan.

    Reasons are those of the API, such as `waiting_for_memory`; they are computed when asked for and not
    stored.
    """

    def __init__(self, *, scheduler_state: SchedulerState, handlers: ActiveHandlers, clock: Clock) -> None:
        self._scheduler_state = scheduler_state
        self._handlers = handlers
        self._clock = clock
        #: Class -> why its first job waits, from the last plan that looked at it.
        self._planned_reasons: dict[JobClass, str] = {}

    def record_plan(self, plan: Plan) -> None:
        """Take over the reasons of a plan; where it did not look at all classes, those of the others stay."""
        if not plan.is_partial:
            self._planned_reasons = dict(plan.reasons)
            return
        self._planned_reasons.update(plan.reasons)
        waiting = self._scheduler_state.backlog.by_class
        if len(self._planned_reasons) > 2 * len(waiting):
            self._planned_reasons = {
                job_class: reason
                for job_class, reason in self._planned_reasons.items()
                if job_class in waiting
            }

    def for_live_job(self, live: LiveJob) -> str | None:
        """The reason of a job in memory; None if it has succeeded."""
        job = live.job
        match live.phase:
            case "ended":
                return job.reason
            case "delayed" | "behind" | "spilled":
                return self.for_stored_job(job)
            case "starting" | "running":
                if job.cancel_reason is not None:
                    return "cancelling"
                return "loading" if live.phase == "starting" else "running"
            case _:
                return self.for_class(live.job_class, job.queue)

    def for_stored_job(self, job: Job) -> str | None:
        """The reason of a job that is not in memory."""
        if job.state != "queued":
            return job.reason
        if job.reason is not None and job.ready_at > self._clock.now():
            return job.reason
        job_class = self._handlers.class_of(group_key(job))
        return "waiting_for_handler" if job_class is None else self.for_class(job_class, job.queue)

    def for_class(
        self, job_class: JobClass | None, queue: str, known: dict[Hashable, str] | None = None
    ) -> str:
        """The reason of a class's ready jobs in a queue; `job_class` is None for jobs without a class.

        `known` holds what was found for others at the same moment: equal classes of many tenants, queues or
        models are examined once.
        """
        if queue in self._scheduler_state.backlog.paused:
            return "paused"
        if job_class is None:
            return "ready"
        reason = self._planned_reasons.get(job_class)
        if reason is not None or self._scheduler_state.backlog.order.is_small:
            return reason or "ready"
        # No plan has looked at it: others of its kind are before it.
        if known is None:
            return find_wait_reason(self._scheduler_state, job_class)
        kind = find_wait_kind(self._scheduler_state, job_class)
        if kind not in known:
            known[kind] = find_wait_reason(self._scheduler_state, job_class)
        return known[kind]
