"""Effect: the document of /stats: numbers of jobs, their times, and the use of devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.jobs.statistics import HandlerStatistics, percentiles
from runner.coordinator.jobs.usage import UsageSum
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.queue.queue_manager import QueueManager
from runner.formats.timestamps import format_rfc3339

#: All states of a job, in the order of the document.
STATES = ("queued", "running", "succeeded", "failed", "cancelled")
#: Jobs that ended within this time count for the throughput.
THROUGHPUT_WINDOW_S = 60.0


class StatsDocument:
    """Builds the document of /stats on request, from counters that other components keep."""

    def __init__(
        self,
        lifecycle: JobLifecycle,
        queue_manager: QueueManager,
        dispatcher: Dispatcher,
        weights: Mapping[str, float],
    ) -> None:
        self._lifecycle = lifecycle
        self._queue_manager = queue_manager
        self._dispatcher = dispatcher
        #: Tenants with a configured weight: their share of device time against that of others, which have 1.
        self._weights = weights
        #: UTC epoch seconds.
        self._started_at = lifecycle.clock.now()

    def build(self) -> dict[str, Any]:
        """Build the document. The use of devices counts since `spent_since`, which a restart keeps; all other
        figures count since the start of the server (`since`).

        `run_s` and `wait_s` are percentiles in seconds over the latest jobs. `throughput_per_s` counts the
        jobs that ended within THROUGHPUT_WINDOW_S, or since the start if that is shorter ago.
        """
        statistics, registry, accounts = (
            self._lifecycle.statistics,
            self._lifecycle.registry,
            self._lifecycle.usage_totals,
        )
        now = self._lifecycle.clock.now()
        counts: Counter[str] = Counter()
        for (_, state), count in registry.counts.items():
            counts[state] += count
        ended_recently = sum(1 for at in statistics.recent_ended_at if at > now - THROUGHPUT_WINDOW_S)
        window_s = max(1e-3, min(THROUGHPUT_WINDOW_S, now - self._started_at))
        return {
            "at": format_rfc3339(now),
            "since": format_rfc3339(self._started_at),
            "counts": {state: counts[state] for state in STATES},
            "submitted": statistics.submitted_count,
            "ended": dict(statistics.ended_by_state),
            "retried": statistics.retried_count,
            "cancelled": statistics.ended_by_state["cancelled"],
            "failures": dict(statistics.failures_by_code),
            "throughput_per_s": ended_recently / window_s,
            "run_s": percentiles(statistics.run_samples_s),
            "wait_s": percentiles(statistics.wait_samples_s),
            "spent_since": format_rfc3339(accounts.since),
            "handlers": self._handlers_json(),
            "tenants": self._tenants_json(),
            "devices": {name: _usage_json(total) for name, total in accounts.devices.items()},
            "stale_messages": statistics.stale_count,
        }

    def _handlers_json(self) -> dict[str, Any]:
        """Runs, times and use of devices of each handler that had a run or a use, by name."""
        statistics, usage = self._lifecycle.statistics.handlers, self._lifecycle.usage_totals.handlers
        return {
            name: _handler_json(statistics.get(name)) | _usage_json(usage.get(name))
            for name in sorted({*statistics, *usage})
        }

    def _tenants_json(self) -> dict[str, Any]:
        """Weight, queued and running jobs and use of devices of each tenant with a weight, a use or a job."""
        usage, queued = (
            self._lifecycle.usage_totals.tenants,
            self._queue_manager.unplanned_by_tenant(),
        )
        for job_class, numbers in self._lifecycle.scheduler_state.backlog.by_class.items():
            queued[job_class.tenant] += 0 if job_class.is_prewarm else len(numbers)
        running: Counter[str] = Counter()
        for executor in self._dispatcher.executors.with_attempts():
            for live in executor.attempts.values():
                counts = running if live.job.state == "running" else queued
                counts[live.job.terms.tenant] += live.phase != "ended"
        return {
            name: {"weight": self._weights.get(name, 1.0), "queued": queued[name], "running": running[name]}
            | _usage_json(usage.get(name))
            for name in sorted({*self._weights, *usage, *(+queued), *(+running)})
        }


def _handler_json(statistics: HandlerStatistics | None) -> dict[str, Any]:
    """Number of runs, and percentiles of run and wait times in seconds; None: no run since the start."""
    statistics = statistics or HandlerStatistics()
    return {
        "runs": statistics.run_count,
        "run_s": percentiles(statistics.run_s),
        "wait_s": percentiles(statistics.wait_s),
    }


def _usage_json(total: UsageSum | None) -> dict[str, Any]:
    """Seconds of devices, bytes times seconds, and the number of attempts that used a device."""
    total = total or UsageSum()
    return {
        "device_s": round(total.device_s, 6),
        "byte_s": round(total.byte_s),
        "attempts_on_devices": total.attempts,
    }
