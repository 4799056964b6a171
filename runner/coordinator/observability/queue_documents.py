"""Effect: the documents of queues: how many jobs each has in each state, and why they wait."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.observability.stats import STATES
from runner.errors import NotFound


class QueueDocuments:
    """Documents as JSON values, built on request."""

    def __init__(self, *, line: JobLifecycle, view: SchedulerState, dispatch: Dispatcher) -> None:
        self._line = line
        self._view = view
        self._dispatch = dispatch

    def build_all(self) -> list[dict[str, Any]]:
        """Every queue that has or had a job, by name."""
        tallies = self._tally_waits()
        return [self._document(name, tallies[name]) for name in self._names()]

    def build_existing(self, name: str) -> dict[str, Any]:
        """A queue that has a job or is paused. Raises NotFound."""
        if name not in self._names() and name not in self._view.backlog.paused:
            raise NotFound(f"there is no queue {name!r}; a queue exists from its first job on")
        return self.build(name)

    def build(self, name: str) -> dict[str, Any]:
        """The counts and figures of a queue, whether it exists or not."""
        return self._document(name, self._tally_waits()[name])

    def _names(self) -> list[str]:
        return sorted({queue for queue, _ in self._line.registry.counts} | {"default"})

    def _tally_waits(self) -> defaultdict[str, WaitTally]:
        """Queue -> the reasons of the jobs that wait and run, counted by class: there may be millions."""
        tallies: defaultdict[str, WaitTally] = defaultdict(WaitTally)
        waiting = self._line.queue_manager
        for queue, why, count, since in waiting.counts_by_reason():
            tallies[queue].add(why, count, since)
        for post in self._dispatch.executors.values():
            for live in post.attempts.values():
                why_now = waiting.reasons.for_live_job(live)
                if why_now is not None and live.phase != "ended":
                    since = live.job.ready_at if live.job.state == "queued" else None
                    tallies[live.job.queue].add(why_now, 1, since)
        return tallies

    def _document(self, name: str, waits: WaitTally) -> dict[str, Any]:
        book, now = self._line.registry, self._line.now()
        counts = {state: book.counts[name, state] for state in STATES}
        done = counts["succeeded"] + counts["failed"]
        runs = self._line.statistics.queue_run_samples_s[name]
        return {
            "name": name,
            "counts": counts,
            "reasons": dict(waits.reasons),
            "paused": name in self._view.backlog.paused,
            "concurrency": None,
            "rate": None,
            "oldest_wait_s": None if waits.oldest == math.inf else max(0.0, now - waits.oldest),
            "running": counts["running"],
            "peak_running": max(book.peak_running[name], counts["running"]),
            "success_rate": counts["succeeded"] / done if done else None,
            "avg_run_s": sum(runs) / len(runs) if runs else None,
        }


class WaitTally:
    """Why the live jobs of a queue wait, and since when the longest-waiting one has been ready."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        #: UTC epoch seconds.
        self.oldest = math.inf

    def add(self, why: str, count: int, since: float | None) -> None:
        """Add jobs that wait for the same reason; the first of them has been ready since `since`."""
        self.reasons[why] += count
        if since is not None:
            self.oldest = min(self.oldest, since)
