"""Pure: what each tenant has had of the devices, so that the one that had least for its weight goes first.

Start-time fair queueing over seconds of devices. Each tenant has a clock that advances by what its jobs
took, divided by its weight; the smallest goes first. A job is charged when it starts, by the time that it
is expected to take, else a tenant would get all places that are free at one moment; one that takes longer is
charged as it goes on; its end puts the clock right. Who was away comes back to the smallest clock of those
who wait: nobody saves up credit. While there is but one tenant nothing is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

#: A job of which nothing is known is taken for so long, in seconds, until some have ended.
UNKNOWN_JOB_S = 10.0
#: How much one end tells of the next one of which nothing is known.
SMOOTHING = 0.1
#: So many accounts are kept before those that say nothing any more are looked for.
ACCOUNTS_MIN_SWEEP = 64


@dataclass(slots=True)
class _TenantClock:
    """One tenant's clock, in seconds of one device and unit of weight."""

    weight: float
    #: For what has ended.
    settled: float = 0.0
    #: For what runs and is not late: what it is expected to take, in seconds of devices.
    promised: float = 0.0
    #: For what runs longer than expected: its devices, and the sum of its starts times its devices.
    late_devices: int = 0
    late_starts: float = 0.0
    running_count: int = 0
    #: In how many lines somebody waits.
    backlog_count: int = 0


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
        self._runs: dict[int, _RunningJob] = {}
        #: (when it is late, job) of what runs; some have ended since.
        self._due: list[tuple[float, int]] = []
        self._now = 0.0
        #: No clock of those who wait is behind this.
        self._minimum = 0.0
        #: What a job takes of which nothing is known.
        self._typical_s: float | None = None
        self._sweep_at = ACCOUNTS_MIN_SWEEP
        #: There is more than one tenant: only then is anything counted.
        self.has_many_tenants = False

    def weight(self, tenant: str) -> float:
        """The tenant's part in what there is, beside the others' parts."""
        return self._weights.get(tenant, 1.0)

    @property
    def has_running(self) -> bool:
        """Whether something runs that was counted at its start."""
        return bool(self._runs)

    def rank(self, tenant: str) -> float:
        """The tenant's clock; smaller goes first."""
        account = self._accounts.get(tenant)
        return self._minimum if account is None else self._clock(account)

    def lead_s(self, tenant: str) -> float:
        """By how much the tenant's clock is ahead of the last one's of those who wait."""
        lowest = min(map(self._clock, self._waiting.values()), default=math.inf)
        return max(0.0, self.rank(tenant) - lowest)

    def advance(self, now: float) -> None:
        """Time has come to `now`: what runs longer than expected is charged for it."""
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

    # Who waits.

    def on_waiting(self, tenant: str) -> None:
        """Somebody of the tenant waits in one more line."""
        account = self._accounts.get(tenant) or self._add_account(tenant)
        account.backlog_count += 1
        if account.backlog_count == 1:
            if self.has_many_tenants:
                self._raise_minimum()
                account.settled = max(account.settled, self._minimum)
            self._waiting[tenant] = account

    def on_not_waiting(self, tenant: str) -> None:
        """Nobody of the tenant waits any more in one of the lines."""
        account = self._accounts[tenant]
        account.backlog_count -= 1
        if account.backlog_count == 0:
            if self.has_many_tenants:
                self._raise_minimum()
            del self._waiting[tenant]

    # What runs.

    def expected_s(self, run_s: float | None) -> float:
        """What a run is taken to last; None: nobody knows."""
        if run_s is not None:
            return run_s
        return UNKNOWN_JOB_S if self._typical_s is None else self._typical_s

    def record_start(self, job_number: int, tenant: str, devices: int, run_s: float | None) -> None:
        """A job starts on so many devices, and is expected to take so long; None: nobody knows."""
        account = self._accounts.get(tenant) or self._add_account(tenant)
        run = self._runs[job_number] = _RunningJob(account, self._now, self.expected_s(run_s), devices)
        account.running_count += 1
        account.promised += run.expected_s * devices
        heappush(self._due, (run.started_at + run.expected_s, job_number))

    def started_at(self, job_number: int, default: float) -> float:
        """When the job started; the default for one that was not counted."""
        run = self._runs.get(job_number)
        return default if run is None else run.started_at

    def record_end(self, job_number: int, run_s: float) -> None:
        """The job took so long, 0 where it did not run after all. One that was not counted is passed over."""
        run = self._runs.pop(job_number, None)
        if run is None:
            return
        account = run.account
        account.running_count -= 1
        if account.running_count == 0:
            # Also what rounding has left.
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
        late = account.late_devices * self._now - account.late_starts
        return account.settled + (account.promised + late) / account.weight

    def _raise_minimum(self) -> None:
        """The smallest clock of those who wait, by what has ended: what others were promised before somebody
        came is no reason to serve him later."""
        lowest = min((account.settled for account in self._waiting.values()), default=self._minimum)
        self._minimum = max(self._minimum, lowest)

    def _add_account(self, tenant: str) -> _TenantClock:
        if len(self._accounts) >= self._sweep_at:
            self._sweep()
        account = self._accounts[tenant] = _TenantClock(self.weight(tenant), self._minimum)
        self.has_many_tenants = len(self._accounts) > 1
        return account

    def _sweep(self) -> None:
        """Forget those who are away and whose clocks would be set to the floor when they come back."""
        for tenant, account in list(self._accounts.items()):
            if not account.backlog_count and not account.running_count and account.settled <= self._minimum:
                del self._accounts[tenant]
        self._sweep_at = max(ACCOUNTS_MIN_SWEEP, 2 * len(self._accounts))
