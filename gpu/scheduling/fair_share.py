"""Pure: the device time that each tenant has had, so that the one with least for its weight goes first.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) over device seconds. Each tenant has a clock that
advances by what its jobs took, divided by its weight; the smallest clock goes first. A job is charged the
time that it is expected to take when it starts, else one tenant would get all places that are free at one
moment. A job that takes longer is charged further as it runs, and its end corrects the clock. A tenant that
returns starts at the smallest clock of those that wait: no tenant accumulates credit while it is away. With
a single tenant nothing is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

#: Assumed duration of a job of which nothing is known, in seconds, until some have ended.
UNKNOWN_JOB_S = 10.0
#: Weight of one ended job in the assumed duration of the next one of which nothing is known.
SMOOTHING = 0.1
#: Number of accounts kept before stale ones are swept.
ACCOUNTS_MIN_SWEEP = 64


@dataclass(slots=True)
class _TenantClock:
    """One tenant's clock, in seconds of one device and unit of weight."""

    weight: float
    #: For jobs that have ended.
    settled: float = 0.0
    #: For running jobs that are not late: what they are expected to take, in device seconds.
    promised: float = 0.0
    #: For jobs that run longer than expected: their devices, and the sum of their starts times their devices.
    late_devices: int = 0
    late_starts: float = 0.0
    running_count: int = 0
    #: In how many class backlogs the tenant has waiting jobs.
    backlog_count: int = 0
    #: It has an entry in the heap of waiting tenants.
    is_listed: bool = False


@dataclass(slots=True)
class _RunningJob:
    account: _TenantClock
    started_at: float
    expected_s: float
    devices: int
    is_late: bool = False


class FairShareClock:
    """The tenants of one kind of devices. Jobs are named by their numbers; times are seconds of any clock."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = {} if weights is None else weights
        self._accounts: dict[str, _TenantClock] = {}
        self._waiting: dict[str, _TenantClock] = {}
        #: Heap of (settled clock, tie-breaker, account) of waiting tenants. Clocks only rise: an entry that
        #: comes up with an older figure is listed again.
        self._by_settled: list[tuple[float, int, _TenantClock]] = []
        self._listed_count = 0
        self._runs: dict[int, _RunningJob] = {}
        #: (when it becomes late, job number) of running jobs; some have ended since.
        self._due: list[tuple[float, int]] = []
        self._now = 0.0
        #: No clock of a waiting tenant is behind this.
        self._minimum = 0.0
        #: Assumed duration of a job of which nothing is known.
        self._typical_s: float | None = None
        self._sweep_at = ACCOUNTS_MIN_SWEEP
        #: There is more than one tenant: only then is anything counted.
        self.has_many_tenants = False

    def weight(self, tenant: str) -> float:
        """Return the tenant's weight in relation to the others; 1 where none was set."""
        return self._weights.get(tenant, 1.0)

    @property
    def has_running(self) -> bool:
        """Whether a job is running that was counted at its start."""
        return bool(self._runs)

    def rank(self, tenant: str) -> float:
        """Return the tenant's clock, in device seconds divided by weight; the smaller goes first."""
        account = self._accounts.get(tenant)
        return self._minimum if account is None else self._clock(account)

    def lead_s(self, tenant: str) -> float:
        """Return how far the tenant's clock is ahead of the smallest clock of a waiting tenant: 0 or more."""
        lowest = min(map(self._clock, self._waiting.values()), default=math.inf)
        return max(0.0, self.rank(tenant) - lowest)

    def advance(self, now: float) -> None:
        """Set the time to `now`, and charge running jobs that became late."""
        self._now = max(self._now, now)
        while self._due and self._due[0][0] <= self._now:
            late_at, job_number = heappop(self._due)
            run = self._runs.get(job_number)
            # The number may run again by now, in another attempt.
            if run is None or run.is_late or run.started_at + run.expected_s != late_at:
                continue
            run.is_late = True
            run.account.promised -= run.expected_s * run.devices
            run.account.late_devices += run.devices
            run.account.late_starts += run.started_at * run.devices

    # Waiting tenants.

    def on_waiting(self, tenant: str) -> None:
        """Count one more class backlog in which the tenant has waiting jobs."""
        account = self._accounts.get(tenant) or self._add_account(tenant)
        if account.backlog_count == 0:
            if self.has_many_tenants:
                self._raise_minimum()
                account.settled = max(account.settled, self._minimum)
            self._waiting[tenant] = account
            self._list(account)
        account.backlog_count += 1

    def on_not_waiting(self, tenant: str) -> None:
        """Count one class backlog less in which the tenant has waiting jobs."""
        account = self._accounts[tenant]
        if account.backlog_count == 1:
            if self.has_many_tenants:
                self._raise_minimum()
            del self._waiting[tenant]
        account.backlog_count -= 1

    # Running jobs.

    def expected_s(self, run_s: float | None) -> float:
        """Return the expected duration of a run, with a default for an unknown one (None)."""
        if run_s is not None:
            return run_s
        return UNKNOWN_JOB_S if self._typical_s is None else self._typical_s

    def record_start(self, job_number: int, tenant: str, devices: int, run_s: float | None) -> None:
        """Record that a job starts on `devices` devices, with the expected duration (None: unknown)."""
        account = self._accounts.get(tenant) or self._add_account(tenant)
        run = self._runs[job_number] = _RunningJob(account, self._now, self.expected_s(run_s), devices)
        account.running_count += 1
        account.promised += run.expected_s * devices
        heappush(self._due, (run.started_at + run.expected_s, job_number))

    def started_at(self, job_number: int, default: float) -> float:
        """Return when the job started; the default for a job that was not counted."""
        run = self._runs.get(job_number)
        return default if run is None else run.started_at

    def record_end(self, job_number: int, run_s: float) -> None:
        """Record that the job took `run_s`, 0 where it did not run after all. Uncounted jobs are ignored."""
        run = self._runs.pop(job_number, None)
        if run is None:
            return
        account = run.account
        account.running_count -= 1
        if account.running_count == 0:
            # This also removes rounding errors.
            account.promised, account.late_devices, account.late_starts = 0.0, 0, 0.0
        elif run.is_late:
            account.late_devices -= run.devices
            account.late_starts -= run.started_at * run.devices
        else:
            account.promised -= run.expected_s * run.devices
        account.settled += run_s * run.devices / account.weight
        if run_s > 0:
            known_s = self._typical_s
            self._typical_s = run_s if known_s is None else known_s + SMOOTHING * (run_s - known_s)
        if not self._runs:
            self._due.clear()

    def _clock(self, account: _TenantClock) -> float:
        """Return the clock now: what has ended, what is promised, and what late jobs have taken so far."""
        late = account.late_devices * self._now - account.late_starts
        return account.settled + (account.promised + late) / account.weight

    def _raise_minimum(self) -> None:
        """Raise the minimum to the smallest settled clock of a waiting tenant.

        Only what has ended counts: charges made before a tenant arrived are no reason to serve it later.
        """
        heap = self._by_settled
        while heap:
            settled, _, account = heap[0]
            if account.settled == settled and account.backlog_count:
                self._minimum = max(self._minimum, settled)
                return
            heappop(heap)
            account.is_listed = False
            if account.backlog_count:
                self._list(account)

    def _list(self, account: _TenantClock) -> None:
        """List a waiting tenant's account by its settled clock, once."""
        if not account.is_listed:
            account.is_listed = True
            self._listed_count += 1
            heappush(self._by_settled, (account.settled, self._listed_count, account))

    def _add_account(self, tenant: str) -> _TenantClock:
        if len(self._accounts) >= self._sweep_at:
            self._sweep()
        account = self._accounts[tenant] = _TenantClock(self.weight(tenant), self._minimum)
        self.has_many_tenants = len(self._accounts) > 1
        return account

    def _sweep(self) -> None:
        """Remove tenants that are away and whose clocks would be raised to the minimum when they return."""
        for tenant, account in list(self._accounts.items()):
            if not account.backlog_count and not account.running_count and account.settled <= self._minimum:
                del self._accounts[tenant]
        self._sweep_at = max(ACCOUNTS_MIN_SWEEP, 2 * len(self._accounts))
