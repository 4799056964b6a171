"""Pure: the next job of a class during one plan, and its rank among the others."""

from __future__ import annotations

import math

from gpu.job_class import JobClass
from gpu.scheduling.capacity import DeviceCapacity
from gpu.scheduling.resident_executor import DeviceSlot
from gpu.scheduling.scheduler_state import SchedulerState
from gpu.scheduling.tenant_shares import PlanShares

#: Seconds of waiting that count as much as one more point of priority.
AGEING_S = 600.0
#: Assumed duration of a run that has no limit and of which none was observed.
UNKNOWN_RUN_S = 3600.0

#: The smallest rank goes first: -priority, whether it may still be overtaken, share of the tenant in seconds,
#: -urgency, job number.
Rank = tuple[float, bool, float, float, int]


class Candidate:
    """The next job of a class that the plan has not started, and how often it may still be overtaken.

    Priority includes ageing. Within one priority the tenant with the smallest share goes first, and of its
    jobs the most urgent one. Urgency is the response ratio of HRRN scheduling (Brinch Hansen, 1971),
    (wait + run) / run, times the square root of the number of devices: several devices are rarely free
    together. It grows with the wait without bound, so no job starves.
    """

    __slots__ = (
        "_backlog",
        "_candidate_ids",
        "_fits_when_empty",
        "_need_by_capacity",
        "_now",
        "_plan_shares",
        "_top_priority",
        "batch_max",
        "claims",
        "device_count",
        "is_blocked",
        "is_device_restricted",
        "is_gpu",
        "job_class",
        "job_number",
        "jobs_per_run",
        "need_bytes",
        "overtakes_left",
        "rank",
        "run_s",
        "started_count",
        "state",
        "waiting_count",
    )

    def __init__(
        self,
        state: SchedulerState,
        job_class: JobClass,
        now: float,
        top_priority: int,
        plan_shares: PlanShares,
    ) -> None:
        """Take the next job of `job_class`; ageing stops at `top_priority`, the highest that waits."""
        self.state = state
        self.job_class = job_class
        self._now = now
        self._top_priority = top_priority
        self._plan_shares = plan_shares
        self._backlog = state.backlog.by_class[job_class]
        self.is_gpu = state.residency.is_on_gpu(job_class)
        self.device_count = state.residency.device_count(job_class)
        #: What a new executor must be granted; None where that is unknown.
        self.need_bytes = state.memory_needs.need_bytes(job_class)
        #: Expected duration of a run; None where that is unknown. 0 for a prewarm request, which runs
        #: nothing.
        self.run_s = 0.0 if job_class.is_prewarm else state.time_estimates.run_s(job_class)
        # Created on first use: a plan makes a thousand candidates and examines only a few of them closely.
        self._need_by_capacity: dict[int, int] | None = None
        self._fits_when_empty: dict[str, bool] | None = None
        #: Some devices of its pool are excluded.
        self.is_device_restricted = bool(job_class.avoided_devices or job_class.allowed_devices)
        self._candidate_ids: set[str] | None = None
        #: The most jobs in one batch (0: the class is not batched), and the jobs that run at once in one
        #: executor.
        self.batch_max = state.batch_sizing.batch_max(job_class)
        self.jobs_per_run = state.batch_sizing.jobs_per_run(job_class)
        self.started_count = 0
        self.waiting_count = len(self._backlog)
        self.job_number = self._backlog.first
        self.overtakes_left = state.overtakes.remaining(self.job_number)
        self.rank = self.rank_of(self.job_number)
        #: The plan tried to start it and found no capacity.
        self.is_blocked = False
        #: Bytes that are claimed for it while other executors leave.
        self.claims: tuple[tuple[DeviceCapacity, int], ...] = ()

    @property
    def batch_deadline(self) -> float:
        """When its next batch starts at the latest.

        In the past where the batch need not wait: it is full or has gathered long enough, or an executor has
        to load for it first (-inf).
        """
        if not self.batch_max or self.job_class.key not in self.state.residency.by_key:
            return -math.inf
        return self.state.batch_sizing.batch_deadline(
            self.job_class, self.waiting_count, self._backlog.waiting_since(self.job_number)
        )

    def rank_of(self, job_number: int) -> Rank:
        """Return the rank of a waiting job of the class. Raises KeyError where it does not wait."""
        return make_rank(
            self.state,
            self.job_class,
            job_number,
            now=self._now,
            top_priority=self._top_priority,
            run_s=self.run_s,
            device_count=self.device_count,
            share=self._plan_shares.rank(self.job_class),
        )

    def update_rank(self) -> bool:
        """Update the rank after its tenant was charged; return whether it changed."""
        if not self._plan_shares.has_many_tenants or self._plan_shares.rank(self.job_class) == self.rank[2]:
            return False
        self.rank = self.rank_of(self.job_number)
        return True

    def need_for_capacity(self, cap_bytes: int) -> int:
        """Return the bytes that must be free to load it on a device with `cap_bytes` of grantable memory."""
        if self.job_class.need_bytes is not None and self.need_bytes == self.job_class.need_bytes:
            return self.job_class.need_bytes
        if self._need_by_capacity is None:
            self._need_by_capacity = {}
        need = self._need_by_capacity.get(cap_bytes)
        if need is None:
            need = self._need_by_capacity[cap_bytes] = self.state.memory_needs.need_for_capacity(
                self.job_class, cap_bytes
            )
        return need

    def avoids(self, device_id: str) -> bool:
        """Return whether the class must not run on a device.

        Either it names other devices, or it failed on this one and can run elsewhere.
        """
        if self._candidate_ids is None:
            self._candidate_ids = {
                slot.device.id for slot in self.state.residency.candidate_devices(self.job_class)
            }
        return device_id not in self._candidate_ids

    def may_run_on(self, capacity: DeviceCapacity) -> bool:
        """Return whether the class may run on a device as it is now, provided that its bytes are free."""
        if self.is_device_restricted and self.avoids(capacity.slot.device.id):
            return False
        return capacity.is_idle or not self.job_class.alone_on_device

    def latest_end(self, count: int, *, is_cold: bool) -> float:
        """Return the time by which `count` jobs have ended in any case; inf for a class without a limit."""
        if math.isinf(self.job_class.limit_s):
            return math.inf
        load_s = (self.state.time_estimates.load_s(self.job_class.key) or 0.0) if is_cold else 0.0
        return self._now + load_s + self.job_class.limit_s * -(-count // self.jobs_per_run)

    def expected_end(self, count: int, *, is_cold: bool) -> float:
        """Return when `count` jobs that start now should have ended; inf where that is unknown."""
        if self.run_s is None:
            return math.inf
        load_s = (self.state.time_estimates.load_s(self.job_class.key) or 0.0) if is_cold else 0.0
        return self._now + load_s + self.run_s * -(-count // self.jobs_per_run)

    def peek(self, count: int) -> list[int]:
        """Return the next `count` jobs of the class, fewer where fewer wait."""
        return self._backlog.peek(count, self.started_count)

    def advance(self, count: int) -> None:
        """Move on to the next job after `count` were started."""
        self.started_count += count
        self.waiting_count -= count
        if self.waiting_count:
            self.job_number = self.peek(1)[0]
            self.overtakes_left = self.state.overtakes.remaining(self.job_number)
            self.rank = self.rank_of(self.job_number)

    def fits_when_empty(self, slot: DeviceSlot) -> bool:
        """Return whether it could start on a device if everything that runs there ended."""
        if self._fits_when_empty is None:
            self._fits_when_empty = {}
        known = self._fits_when_empty.get(slot.device.id)
        if known is None:
            known = self._fits_when_empty[slot.device.id] = self.state.memory_needs.fits_when_empty(
                self.job_class, slot
            )
        return known


def make_rank(
    state: SchedulerState,
    job_class: JobClass,
    job_number: int,
    *,
    now: float,
    top_priority: int,
    run_s: float | None,
    device_count: int,
    share: float,
) -> Rank:
    """Return the rank of a waiting job; `Candidate` says how it comes about.

    `run_s` is the expected duration of a run (None: unknown), and `share` the rank of the job's tenant.
    Raises KeyError where the job does not wait.
    """
    waited_s = max(0.0, now - state.backlog.by_class[job_class].waiting_since(job_number))
    run_s = _run_s_or_default(run_s)
    priority = job_class.priority
    if not job_class.is_prewarm:
        priority = min(top_priority, priority + int(waited_s / AGEING_S))
    urgency = (waited_s + run_s) / run_s * math.sqrt(device_count)
    return -priority, state.overtakes.remaining(job_number) > 0, share, -urgency, job_number


def make_backfill_rank(rank: Rank, run_s: float | None) -> tuple[float, float, float, Rank]:
    """Return the sort key of backfilling: priority, then the tenant's share, then the expected duration."""
    return rank[0], rank[2], _run_s_or_default(run_s), rank


def _run_s_or_default(run_s: float | None) -> float:
    return UNKNOWN_RUN_S if run_s is None else max(1.0, run_s)
