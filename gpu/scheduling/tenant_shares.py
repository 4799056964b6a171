"""Pure: the shares of tenants in the GPUs and in the cpu, told of what happens to the jobs of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized

from gpu.job_class import JobClass, Key
from gpu.scheduling.fair_share import FairShareClock
from gpu.scheduling.residency import Residency

#: What a run of a class, and loading, are expected to take (None: unknown), and how many run at once in one
#: executor.
Expected = tuple[Callable[[JobClass], float | None], Callable[[Key], float | None], Callable[[JobClass], int]]


class Tenancy:
    """The two lanes have nothing to do with each other: who fills the cpu may still have the GPUs. On GPUs
    seconds of devices are counted, on the cpu seconds of executors. Wishes are nobody's. Before a second
    tenant comes nothing is done."""

    def __init__(
        self,
        floor: Residency,
        lines: Mapping[JobClass, Sized],
        expected: Expected,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self._floor = floor
        #: The classes of which somebody waits.
        self._lines = lines
        self._gpu = FairShareClock(weights)
        self._cpu = FairShareClock(weights)
        self._run_s, self._load_s, self._at_once = expected
        #: Until when an executor's time is put down to somebody.
        self._told: dict[int, float] = {}
        #: The only tenant that was ever seen.
        self._only: str | None = None
        #: There was more than one.
        self.is_shared = False

    def of(self, cls: JobClass) -> FairShareClock:
        """The shares in the lane of the class."""
        return self._gpu if self._floor.is_on_gpu(cls) else self._cpu

    def expected_s(self, cls: JobClass, count: int, *, loads: bool) -> float:
        """What so many jobs of the class are expected to take together of each of their devices."""
        load_s = self._load_s(cls.key) if loads else None
        run_s = self.of(cls).expected_s(self._run_s(cls))
        return run_s * count / self._at_once(cls) + (load_s or 0.0)

    def advance(self, now: float) -> None:
        """Time has come to `now`; comes before each plan."""
        for shares in (self._gpu, self._cpu):
            if shares.has_running:
                shares.advance(now)

    def waits(self, cls: JobClass) -> None:
        """The first job of a class waits; the class is among the lines already."""
        if not self.is_shared and not self._is_second(cls):
            return
        if not cls.is_wish:
            self.of(cls).on_waiting(cls.tenant)

    def rests(self, cls: JobClass) -> None:
        """No job of the class waits any more."""
        if self.is_shared and not cls.is_wish:
            self.of(cls).on_not_waiting(cls.tenant)

    def started(self, cls: JobClass, ns: Sequence[int], now: float, *, loads: bool) -> None:
        """Jobs of a class are handed to an executor, which loads first or not."""
        if not self.is_shared or cls.is_wish:
            return
        shares = self.of(cls)
        if not shares.has_many_tenants:
            return
        shares.advance(now)
        expected_s = self.expected_s(cls, len(ns), loads=loads) / len(ns)
        devices = self._floor.device_count(cls)
        for n in ns:
            shares.record_start(n, cls.tenant, devices, expected_s)

    def ended(self, cls: JobClass, n: int, executor: int, now: float, *, ran: bool) -> None:
        """A job is off its executor, which it may have shared with others: what passed since the last of them
        left is put down to this one."""
        if not self.is_shared:
            return
        shares = self.of(cls)
        since = max(shares.started_at(n, now), self._told.get(executor, 0.0))
        if ran:
            self._told[executor] = now
        shares.record_end(n, max(0.0, now - since) if ran else 0.0)

    def gone(self, executor: int, left: Mapping[int, JobClass]) -> None:
        """The executor is no more; what it had left did not run."""
        if not self.is_shared:
            return
        self._told.pop(executor, None)
        for n, cls in left.items():
            self.of(cls).record_end(n, 0.0)

    def _is_second(self, cls: JobClass) -> bool:
        """Whether with this class a second tenant has come; then those who wait already are taken in."""
        if cls.tenant == self._only or cls.is_wish:
            return False
        if self._only is None:
            self._only = cls.tenant
            return False
        self.is_shared = True
        for other in self._lines:
            if other is not cls and not other.is_wish:
                self.of(other).on_waiting(other.tenant)
        return True


class Standing:
    """Where tenants stand in the course of one plan: what it has given them counts at once."""

    def __init__(self, tenancy: Tenancy, floor: Residency) -> None:
        self._tenancy = tenancy
        self._floor = floor
        self._given: dict[tuple[FairShareClock, str], float] = {}
        #: Else nothing is to be asked here: all stand alike.
        self.is_shared = tenancy.is_shared

    def of(self, cls: JobClass) -> float:
        """The smaller, the earlier go a tenant's jobs among others of their priority; while there is but one
        tenant all are alike, and wishes always."""
        if not self.is_shared or cls.is_wish:
            return 0.0
        shares = self._tenancy.of(cls)
        return shares.rank(cls.tenant) + self._given.get((shares, cls.tenant), 0.0)

    def give(self, cls: JobClass, count: int, *, loads: bool) -> None:
        """So many jobs of a class are to start."""
        if not self.is_shared or cls.is_wish:
            return
        shares = self._tenancy.of(cls)
        device_s = self._tenancy.expected_s(cls, count, loads=loads) * self._floor.device_count(cls)
        given = self._given.get((shares, cls.tenant), 0.0)
        self._given[shares, cls.tenant] = given + device_s / shares.weight(cls.tenant)
