"""Pure: the shares of tenants in the GPUs and in the cpu, updated by events of job classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized

from gpu.job_class import JobClass, Key
from gpu.scheduling.fair_share import FairShareClock
from gpu.scheduling.residency import Residency

#: Expected durations of a run of a class and of a load (None: unknown), and jobs at once in one executor.
Expected = tuple[Callable[[JobClass], float | None], Callable[[Key], float | None], Callable[[JobClass], int]]


class TenantShares:
    """The fair-share clocks of both pools.

    The pools are independent: a tenant that fills the cpu still gets its share of the GPUs. GPUs are counted
    in device seconds, the cpu in executor seconds. Prewarm requests belong to no tenant. Nothing is counted
    before a second tenant appears.
    """

    def __init__(
        self,
        residency: Residency,
        backlogs: Mapping[JobClass, Sized],
        expected: Expected,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self._residency = residency
        #: The classes that have waiting jobs.
        self._backlogs = backlogs
        self._gpu = FairShareClock(weights)
        self._cpu = FairShareClock(weights)
        self._run_s, self._load_s, self._jobs_per_run = expected
        #: The time up to which each executor's use is charged to a job.
        self._charged_until: dict[int, float] = {}
        #: The first tenant that was seen.
        self._first_tenant: str | None = None
        #: There has been more than one tenant.
        self.has_many_tenants = False

    def clock_of(self, job_class: JobClass) -> FairShareClock:
        """Return the clocks of the pool in which the class runs."""
        return self._gpu if self._residency.is_on_gpu(job_class) else self._cpu

    def expected_s(self, job_class: JobClass, count: int, *, is_cold: bool) -> float:
        """Return how many seconds `count` jobs of the class should occupy each of their devices.

        With batches or slots, jobs share the time of a run; `is_cold` adds a load, if its duration is known.
        """
        load_s = self._load_s(job_class.key) if is_cold else None
        run_s = self.clock_of(job_class).expected_s(self._run_s(job_class))
        return run_s * count / self._jobs_per_run(job_class) + (load_s or 0.0)

    def advance(self, now: float) -> None:
        """Set the time to `now`; called before each plan."""
        for clock in (self._gpu, self._cpu):
            if clock.has_running:
                clock.advance(now)

    def on_waiting(self, job_class: JobClass) -> None:
        """Record that the first job of a class waits; the class is among the backlogs already."""
        if not self.has_many_tenants and not self._detect_second_tenant(job_class):
            return
        if not job_class.is_prewarm:
            self.clock_of(job_class).on_waiting(job_class.tenant)

    def on_not_waiting(self, job_class: JobClass) -> None:
        """Record that no job of the class waits any more."""
        if self.has_many_tenants and not job_class.is_prewarm:
            self.clock_of(job_class).on_not_waiting(job_class.tenant)

    def record_start(
        self, job_class: JobClass, job_numbers: Sequence[int], now: float, *, is_cold: bool
    ) -> None:
        """Record that jobs of a class are assigned to an executor; `is_cold`: it loads first."""
        if not self.has_many_tenants or job_class.is_prewarm:
            return
        clock = self.clock_of(job_class)
        if not clock.has_many_tenants:
            return
        clock.advance(now)
        expected_s = self.expected_s(job_class, len(job_numbers), is_cold=is_cold) / len(job_numbers)
        devices = self._residency.device_count(job_class)
        for job_number in job_numbers:
            clock.record_start(job_number, job_class.tenant, devices, expected_s)

    def record_end(
        self, job_class: JobClass, job_number: int, executor: int, now: float, *, has_run: bool
    ) -> None:
        """Record that a job ended.

        It may have shared its executor with others: it is charged the time since the last of them ended.
        """
        if not self.has_many_tenants:
            return
        clock = self.clock_of(job_class)
        since = max(clock.started_at(job_number, now), self._charged_until.get(executor, 0.0))
        if has_run:
            self._charged_until[executor] = now
        clock.record_end(job_number, max(0.0, now - since) if has_run else 0.0)

    def on_executor_gone(self, executor: int, assigned: Mapping[int, JobClass]) -> None:
        """Forget an executor that is gone; its remaining jobs did not run."""
        if not self.has_many_tenants:
            return
        self._charged_until.pop(executor, None)
        for job_number, job_class in assigned.items():
            self.clock_of(job_class).record_end(job_number, 0.0)

    def _detect_second_tenant(self, job_class: JobClass) -> bool:
        """Return whether the class brings a second tenant; if so, register the classes that already wait."""
        if job_class.tenant == self._first_tenant or job_class.is_prewarm:
            return False
        if self._first_tenant is None:
            self._first_tenant = job_class.tenant
            return False
        self.has_many_tenants = True
        for other in self._backlogs:
            if other is not job_class and not other.is_prewarm:
                self.clock_of(other).on_waiting(other.tenant)
        return True


class PlanShares:
    """The order of tenants during one plan: what the plan gives a tenant is charged at once."""

    def __init__(self, tenant_shares: TenantShares, residency: Residency) -> None:
        self._tenant_shares = tenant_shares
        self._residency = residency
        self._charged: dict[tuple[FairShareClock, str], float] = {}
        #: If False, all tenants rank alike and nothing is counted.
        self.has_many_tenants = tenant_shares.has_many_tenants

    def rank(self, job_class: JobClass) -> float:
        """Return the rank of the tenant's jobs among others of their priority; the smaller goes first.

        All ranks are 0 while there is one tenant; those of prewarm requests always are.
        """
        if not self.has_many_tenants or job_class.is_prewarm:
            return 0.0
        clock = self._tenant_shares.clock_of(job_class)
        return clock.rank(job_class.tenant) + self._charged.get((clock, job_class.tenant), 0.0)

    def charge(self, job_class: JobClass, count: int, *, is_cold: bool) -> None:
        """Charge `count` jobs of a class that are going to start."""
        if not self.has_many_tenants or job_class.is_prewarm:
            return
        clock = self._tenant_shares.clock_of(job_class)
        device_s = self._tenant_shares.expected_s(
            job_class, count, is_cold=is_cold
        ) * self._residency.device_count(job_class)
        charged = self._charged.get((clock, job_class.tenant), 0.0)
        self._charged[clock, job_class.tenant] = charged + device_s / clock.weight(job_class.tenant)
