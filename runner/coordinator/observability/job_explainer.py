"""Effect: explains why a job waits, where it runs or how it ended, in sentences and figures."""

from __future__ import annotations

from typing import Any

from gpu.job_class import JobClass
from gpu.planning.explain import explain, explain_reservation
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.jobs import explanations
from runner.coordinator.jobs.event_json import error_fields
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.jobs.statistics import Statistics
from runner.coordinator.observability.wait_statuses import WaitStatuses
from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.runtime.clock import Clock
from runner.formats.timestamps import format_rfc3339
from runner.jobs.job import ENDED, Job
from runner.stores.queued_groups import group_key


class JobExplainer:
    """Builds the document of `GET /jobs/{id}/explain` from the queue, the last plan and the devices."""

    def __init__(
        self,
        *,
        queue_manager: QueueManager,
        scheduler_state: SchedulerState,
        statistics: Statistics,
        clock: Clock,
        wait_statuses: WaitStatuses,
    ) -> None:
        self._queue_manager = queue_manager
        self._scheduler_state = scheduler_state
        self._statistics = statistics
        self._clock = clock
        self._wait_statuses = wait_statuses

    def explain(self, job: Job, live: LiveJob | None) -> dict[str, Any]:
        """Return the explanation as a JSON value; `live` is None if the job is not in memory.

        `message` is a sentence, `reason` and `last_error` those that the job's document shows. Further fields
        depend on the state of the job:

        - scheduled: `starts_in_s`, the seconds until it is ready;
        - waiting: `devices` with free and needed bytes and a reason each, `jobs_ahead` and `reserved`, and
          `position` and `eta_s` as in the job's document;
        - with an executor: `executor`, its number.
        """
        if job.state in ENDED:
            return {
                "id": job.id,
                "state": job.state,
                "reason": job.reason,
                "message": f"ended: {job.state}",
            }
        queue_manager = self._queue_manager
        reason = (
            queue_manager.reasons.for_stored_job(job)
            if live is None
            else queue_manager.reasons.for_live_job(live)
        )
        phase = queue_manager.stored_phase(job) if live is None else live.phase
        document: dict[str, Any] = {"id": job.id, "state": job.state, "reason": reason}
        failure = job.last_failure
        error = None if failure is None else failure.error
        document["last_error"] = None if error is None else error_fields(error)
        job_class = (
            queue_manager.handlers.class_of(group_key(job))
            if live is None or live.job_class is None
            else live.job_class
        )
        if phase == "delayed":
            document["starts_in_s"] = seconds = max(0.0, job.ready_at - self._clock.now())
            document["message"] = (
                f"scheduled to start at {format_rfc3339(job.ready_at)}"
                if failure is None or error is None
                else explanations.explain_retry_delay(failure.attempt, error.message, seconds)
            )
        elif phase in ("waiting", "behind") and job_class is not None:
            document |= self._explain_wait(job, live, job_class) | {"reason": reason}
            document["message"] = explanations.explain_waiting(reason, document)
        elif phase == "behind":
            document["message"] = (
                f"waiting for handler {job.handler!r}, which is unknown or still being described"
            )
        else:
            document |= self._explain_attempt(job, phase, None if live is None else live.executor)
        if failure is not None and error is not None and phase != "delayed":
            document["message"] += f"; {explanations.explain_failure(failure.attempt, error.message)}"
        return document

    def _explain_wait(self, job: Job, live: LiveJob | None, job_class: JobClass) -> dict[str, Any]:
        """Return the figures of a job that is ready: devices, jobs before it, reservation, expected start."""
        state = self._scheduler_state
        figures = explain(state, job_class, job.number)
        figures["reserved"] = explain_reservation(state, job.number, self._clock.now())
        for device in figures["devices"]:
            if device["reason"] == "device_fault":
                device["message"] = self._statistics.first_fault(device["device"])
            if device["reason"] == "waiting_for_memory":
                device["foreign_bytes"] = state.ledger.usage.foreign_bytes(device["device"])
        figures["jobs_ahead"] += self._queue_manager.jobs_ahead(job_class, job.number)
        wait = self._wait_statuses.status_of(job, live)
        figures["position"] = None if wait is None else wait.position
        figures["eta_s"] = None if wait is None else wait.eta_s
        return figures

    def _explain_attempt(self, job: Job, phase: str | None, executor: int | None) -> dict[str, Any]:
        """Explain where the attempt in flight is: assigned, staged behind another one, loading or running.

        `executor` is the number of the executor that holds the attempt.
        """
        started_at = job.started_at
        seconds = 0.0 if started_at is None else max(0.0, self._clock.now() - started_at)
        return {
            "message": explanations.explain_attempt(
                phase or "",
                job.attempts[-1].devices if job.attempts else [],
                executor,
                seconds,
                is_cancelling=job.cancel_reason is not None,
            ),
            "executor": executor,
        }
