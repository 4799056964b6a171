"""Effect: the documents of queues: how many jobs each has in each state, and why they wait."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.observability.stats import STATES
from runner.coordinator.queue.queue_manager import QueueManager
from runner.errors import NotFound


class QueueDocuments:
    """Builds the documents of queues as JSON values, on request."""

    def __init__(
        self,
        *,
        lifecycle: JobLifecycle,
        queue_manager: QueueManager,
        scheduler_state: SchedulerState,
        dispatcher: Dispatcher,
    ) -> None:
        self._lifecycle = lifecycle
        self._queue_manager = queue_manager
        self._scheduler_state = scheduler_state
        self._dispatcher = dispatcher

    def build_all(self) -> list[dict[str, Any]]:
        """Return the document of every queue that has or had a job, by name; `default` is always among
        them."""
        tallies = self._tally_waits()
        return [self._document(name, tallies[name]) for name in self._queue_names()]

    def build_existing(self, name: str) -> dict[str, Any]:
        """Return the document of a queue. Raises NotFound as `require`."""
        self.require(name)
        return self.build(name)

    def require(self, name: str) -> None:
        """Check that a queue exists: it has or had a job, is paused, or is the queue of a handler.

        Raises:
            NotFound: there is no such queue.
        """
        counts = self._lifecycle.registry.counts
        if name == "default" or name in self._scheduler_state.backlog.paused:
            return
        if any((name, state) in counts for state in STATES):
            return
        if all(spec.options.queue != name for spec in self._queue_manager.handlers.specs.values()):
            raise NotFound(f"there is no queue {name!r}; its first job creates it, or PUT /v1/queues/{name}")

    def build(self, name: str) -> dict[str, Any]:
        """Return the document of a queue, whether it exists or not."""
        return self._document(name, self._tally_waits(name)[name])

    def _queue_names(self) -> list[str]:
        """The names of all queues that have or had a job, sorted."""
        return sorted({queue for queue, _ in self._lifecycle.registry.counts} | {"default"})

    def _tally_waits(self, only: str | None = None) -> defaultdict[str, WaitTally]:
        """Count the waiting and running jobs of each queue, or of the queue `only`, by reason. Waiting jobs
        are counted by class: there may be millions of them."""
        tallies: defaultdict[str, WaitTally] = defaultdict(WaitTally)
        for queue, reason, count, since in self._queue_manager.counts_by_reason(only):
            tallies[queue].add(reason, count, since)
        for executor in self._dispatcher.executors.with_attempts():
            for live in executor.attempts.values():
                live_reason = self._queue_manager.reasons.for_live_job(live)
                if live_reason is not None and live.phase != "ended":
                    since = live.job.ready_at if live.job.state == "queued" else None
                    tallies[live.job.queue].add(live_reason, 1, since)
        return tallies

    def _document(self, name: str, tally: WaitTally) -> dict[str, Any]:
        """Return the document of a queue: its jobs by state, and why the live ones wait.

        `oldest_wait_s` is the longest wait of a ready job, in seconds, and None if no job waits.
        `peak_running` is the largest number of jobs that ran at once since the start. `success_rate` is a
        fraction of the jobs that succeeded or failed and are still stored. `avg_run_s` covers the latest
        runs, in seconds.
        """
        registry, now = self._lifecycle.registry, self._lifecycle.clock.now()
        counts = {state: registry.counts[name, state] for state in STATES}
        ended_count = counts["succeeded"] + counts["failed"]
        run_times = self._lifecycle.statistics.queue_run_samples_s[name]
        return {
            "name": name,
            "counts": counts,
            "reasons": dict(tally.reasons),
            "paused": name in self._scheduler_state.backlog.paused,
            "concurrency": None,
            "rate": None,
            "oldest_wait_s": None
            if tally.oldest_ready_at == math.inf
            else max(0.0, now - tally.oldest_ready_at),
            "running": counts["running"],
            "peak_running": max(registry.peak_running[name], counts["running"]),
            "success_rate": counts["succeeded"] / ended_count if ended_count else None,
            "avg_run_s": sum(run_times) / len(run_times) if run_times else None,
        }


class WaitTally:
    """The number of a queue's live jobs by reason, and the time at which the longest-waiting one became
    ready."""

    def __init__(self) -> None:
        #: Reason -> number of jobs.
        self.reasons: Counter[str] = Counter()
        #: UTC epoch seconds; infinity if no job waits.
        self.oldest_ready_at = math.inf

    def add(self, reason: str, count: int, since: float | None) -> None:
        """Add `count` jobs with the same reason. The first of them became ready at `since`; None: they
        run."""
        self.reasons[reason] += count
        if since is not None:
            self.oldest_ready_at = min(self.oldest_ready_at, since)
