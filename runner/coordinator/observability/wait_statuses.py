"""Effect: how queued jobs wait: reason, position, expected start, and a line for people."""

from __future__ import annotations

import time
from collections.abc import Callable

from gpu.job_class import JobClass
from gpu.planning.explain import count_ahead
from gpu.planning.forecast import Forecast, JobForecast, forecast
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.jobs import explanations
from runner.coordinator.jobs.explanations import WaitStatus
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.runtime.clock import Clock
from runner.formats.timestamps import format_rfc3339
from runner.jobs.job import Job
from runner.protocol.front import JobWaiting
from runner.stores.queued_groups import group_key

#: A forecast is used for this many times as long as it took, so that forecasts take 2 % of a core, but for at
#: most this many seconds.
FORECAST_REUSE = 50
FORECAST_REUSE_MAX_S = 5.0


class WaitStatuses:
    """Statuses of queued jobs from one forecast for all of them, which is made when someone asks."""

    def __init__(
        self,
        *,
        queue_manager: QueueManager,
        scheduler_state: SchedulerState,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue_manager = queue_manager
        self._scheduler_state = scheduler_state
        self._clock = clock
        self._monotonic = monotonic
        self._forecast = Forecast()
        #: When the forecast was made, by the clock, and until when it is used, by the monotonic clock.
        self._forecast_at = 0.0
        self._forecast_until_mono = 0.0

    def status_of(self, job: Job, live: LiveJob | None) -> WaitStatus | None:
        """Return how a job waits now; None if it is not queued. `live` is None if it is not in memory.

        The cost does not depend on the number of waiting jobs, but for a job behind the first ones on the
        number of waiting classes.
        """
        if job.state != "queued":
            return None
        queue_manager = self._queue_manager
        phase = live.phase if live is not None else queue_manager.stored_phase(job)
        reasons = queue_manager.reasons
        reason = reasons.for_stored_job(job) if live is None else reasons.for_live_job(live)
        if phase == "delayed":
            return self._delayed_status(job, reason)
        if live is not None and live.executor is not None:
            # An executor has its attempt, which starts next.
            return WaitStatus(reason, 1, None, explanations.summarize_wait(reason, position=1))
        job_class = (
            live.job_class
            if live is not None and phase == "waiting"
            else queue_manager.handlers.class_of(group_key(job))
        )
        if job_class is None or reason == "paused":
            return WaitStatus(reason, None, None, explanations.summarize_wait(reason))
        position, eta_s = self._find_forecast(job_class, job.number)
        message = explanations.summarize_wait(
            reason,
            needed_bytes=self._scheduler_state.memory_needs.need_bytes(job_class),
            device_count=self._scheduler_state.residency.device_count(job_class),
            position=position,
            eta_s=eta_s,
        )
        return WaitStatus(reason, position, eta_s, message)

    def message_of(self, job: Job, status: WaitStatus) -> JobWaiting:
        """Return the message to fronts about a job that waits so, after its last event."""
        return JobWaiting(
            job.id,
            job.last_seq,
            self._clock.now(),
            status.reason,
            status.message,
            status.position,
            None if status.eta_s is None else round(status.eta_s, 1),
        )

    def _delayed_status(self, job: Job, reason: str | None) -> WaitStatus:
        """Return the status of a job whose start time, `ready_at`, has not come."""
        eta_s = max(0.0, job.ready_at - self._clock.now())
        failure = job.last_failure
        if failure is None or failure.error is None:
            message = f"scheduled to start at {format_rfc3339(job.ready_at)}"
        else:
            text = explanations.explain_failure(failure.attempt, failure.error.message)
            message = f"{text}; retry in about {explanations.format_about(eta_s)}"
        return WaitStatus(reason, None, eta_s, message)

    def _find_forecast(self, job_class: JobClass, job_number: int) -> JobForecast:
        """Return the forecast of a ready job; the start is given from now on."""
        current = self._current_forecast()
        found = current.by_number.get(job_number)
        if found is None:
            state = self._scheduler_state
            ahead = count_ahead(state, job_class, job_number)
            ahead += self._queue_manager.jobs_ahead(job_class, job_number)
            found = current.extrapolate(state.residency.is_on_gpu(job_class), ahead + 1)
        if found.eta_s is None:
            return found
        age_s = self._clock.now() - self._forecast_at
        return JobForecast(found.position, max(0.0, found.eta_s - age_s))

    def _current_forecast(self) -> Forecast:
        """Return a forecast that is as recent as its cost allows."""
        began_mono = self._monotonic()
        if began_mono >= self._forecast_until_mono:
            self._forecast_at = self._clock.now()
            self._forecast = forecast(self._scheduler_state, self._forecast_at)
            ended_mono = self._monotonic()
            cost_s = ended_mono - began_mono
            self._forecast_until_mono = ended_mono + min(FORECAST_REUSE_MAX_S, FORECAST_REUSE * cost_s)
        return self._forecast
