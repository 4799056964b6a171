"""Effect: tells fronts how the queued jobs wait that their clients follow, once a second at most."""

from __future__ import annotations

import time

from runner.coordinator.front.subscriptions import Subscriptions
from runner.coordinator.jobs.job_registry import JobRegistry
from runner.coordinator.observability.wait_statuses import WaitStatuses
from runner.coordinator.queue.timers import Timers
from runner.coordinator.runtime.clock import Clock
from runner.coordinator.storage.journal import Journal
from runner.jobs.job import Job
from runner.protocol.front import encode

#: Interval between two rounds, in seconds: a job is looked at once in a round at most.
ROUND_S = 1.0
#: Bounds of one round: jobs, and seconds. The next round goes on with the jobs that were not reached.
JOBS_PER_ROUND = 1_000
ROUND_BUDGET_S = 0.02

#: What of a status is compared with the last one that was sent: reason, position and message.
_Shown = tuple[str | None, int | None, str]


class WaitingNotifier:
    """Sends the status of a followed job when it has changed. Jobs that nobody follows cost nothing.

    A status holds until the job's next event. So it is sent once the job's latest event is durable, and after
    that event.
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        registry: JobRegistry,
        journal: Journal,
        wait_statuses: WaitStatuses,
        timers: Timers,
        clock: Clock,
        *,
        jobs_per_round: int = JOBS_PER_ROUND,
    ) -> None:
        self._subscriptions = subscriptions
        self._registry = registry
        self._journal = journal
        self._wait_statuses = wait_statuses
        #: Followed jobs that are queued, the next to look at first -> what was sent last.
        self._shown: dict[str, _Shown | None] = {}
        self._timers = timers
        self._clock = clock
        self._jobs_per_round = jobs_per_round
        self._is_round_due = False

    def on_subscribed(self, job_id: str) -> None:
        """Follow a job that is queued, or may be: a job that is not in memory is spilled or has ended."""
        live = self._registry.by_id.get(job_id)
        if live is not None and live.job.state == "queued":
            self._follow(job_id)

    def on_unsubscribed(self, job_id: str) -> None:
        """Stop following a job."""
        self._shown.pop(job_id, None)

    def on_events(self, job: Job) -> None:
        """Follow a job from the event on that shows it queued, until one that shows it otherwise."""
        if job.state == "queued":
            self._follow(job.id)
        else:
            self._shown.pop(job.id, None)

    def _follow(self, job_id: str) -> None:
        self._shown[job_id] = None
        self._plan_round()

    def _plan_round(self) -> None:
        """Set the timer of the next round while there are jobs to follow."""
        if self._shown and not self._is_round_due:
            self._is_round_due = True
            self._timers.call_at(self._clock.now() + ROUND_S, self._run_round)

    def _run_round(self) -> None:
        """Send the statuses that have changed, of as many jobs as the bounds of a round allow."""
        self._is_round_due = False
        # Before the round: should it fail, the next one is still due.
        self._plan_round()
        until_mono = time.monotonic() + ROUND_BUDGET_S
        for _ in range(min(len(self._shown), self._jobs_per_round)):
            job_id = next(iter(self._shown))
            # To the end: the others come first in the next round.
            shown = self._shown[job_id] = self._shown.pop(job_id)
            self._send_change(job_id, shown)
            if time.monotonic() >= until_mono:
                break

    def _send_change(self, job_id: str, shown: _Shown | None) -> None:
        live = self._registry.by_id.get(job_id)
        if live is None or self._journal.durable_seq(live.job) < live.job.last_seq:
            return
        status = self._wait_statuses.status_of(live.job, live)
        if status is None:
            return
        current = (status.reason, status.position, status.message)
        if current != shown:
            self._shown[job_id] = current
            message = encode(self._wait_statuses.message_of(live.job, status))
            self._subscriptions.send(job_id, message)
