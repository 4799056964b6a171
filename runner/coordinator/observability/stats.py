"""Effect: the document of /stats: what was done, how long it took, and what each had of the devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.jobs.statistics import HandlerStatistics, percentiles
from runner.coordinator.jobs.usage import UsageSum
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.formats.timestamps import format_rfc3339

STATES = ("queued", "running", "succeeded", "failed", "cancelled")
#: Throughput is told over so many seconds.
RECENT_S = 60.0


class Stats:
    """Made when asked for."""

    def __init__(self, line: JobLifecycle, dispatch: Dispatcher, weights: Mapping[str, float]) -> None:
        self._line = line
        self._dispatch = dispatch
        #: Tenants of whom the operator said something.
        self._weights = weights
        self._started_at = line.now()

    def document(self) -> dict[str, Any]:
        """All figures: those of devices since `spent_since`, all others since the start."""
        figures, book, accounts = self._line.statistics, self._line.registry, self._line.usage_totals
        now = self._line.now()
        counts: Counter[str] = Counter()
        for (_, state), count in book.counts.items():
            counts[state] += count
        recent = sum(1 for at in figures.recent_ended_at if at > now - RECENT_S)
        span = max(1e-3, min(RECENT_S, now - self._started_at))
        return {
            "at": format_rfc3339(now),
            "since": format_rfc3339(self._started_at),
            "counts": {state: counts[state] for state in STATES},
            "submitted": figures.submitted_count,
            "ended": dict(figures.ended_by_state),
            "retried": figures.retried_count,
            "cancelled": figures.ended_by_state["cancelled"],
            "failures": dict(figures.failures_by_code),
            "throughput_per_s": recent / span,
            "run_s": percentiles(figures.run_samples_s),
            "wait_s": percentiles(figures.wait_samples_s),
            "spent_since": format_rfc3339(accounts.since),
            "handlers": self._handlers(),
            "tenants": self._tenants(),
            "devices": {name: _spent(total) for name, total in accounts.devices.items()},
            "stale_messages": figures.stale_count,
        }

    def _handlers(self) -> dict[str, Any]:
        seen, spent = self._line.statistics.handlers, self._line.usage_totals.handlers
        return {name: _handler(seen.get(name)) | _spent(spent.get(name)) for name in sorted({*seen, *spent})}

    def _tenants(self) -> dict[str, Any]:
        spent, queued = self._line.usage_totals.tenants, self._line.queue_manager.unplanned_by_tenant()
        for cls, waiting in self._line.view.backlog.by_class.items():
            queued[cls.tenant] += 0 if cls.is_prewarm else len(waiting)
        running: Counter[str] = Counter()
        for post in self._dispatch.executors.values():
            for live in post.attempts.values():
                held = running if live.job.state == "running" else queued
                held[live.job.terms.tenant] += live.phase != "ended"
        return {
            name: {"weight": self._weights.get(name, 1.0), "queued": queued[name], "running": running[name]}
            | _spent(spent.get(name))
            for name in sorted({*self._weights, *spent, *(+queued), *(+running)})
        }


def _handler(own: HandlerStatistics | None) -> dict[str, Any]:
    own = own or HandlerStatistics()
    return {"runs": own.run_count, "run_s": percentiles(own.run_s), "wait_s": percentiles(own.wait_s)}


def _spent(total: UsageSum | None) -> dict[str, Any]:
    total = total or UsageSum()
    return {
        "device_s": round(total.device_s, 6),
        "byte_s": round(total.byte_s),
        "attempts_on_devices": total.attempts,
    }
