"""Pure: the first waiting job of a class in the course of one plan, and its place among the others."""

from __future__ import annotations

import math

from gpu.job_class import JobClass
from gpu.scheduling.capacity import DeviceCapacity
from gpu.scheduling.resident_executor import DeviceSlot
from gpu.scheduling.scheduler_state import SchedulerState
from gpu.scheduling.tenant_shares import PlanShares

#: So many seconds of waiting count as much as one more point of priority.
AGEING_S = 60.0
#: What a run is taken to last where nothing limits it and none was seen.
UNKNOWN_RUN_S = 3600.0

#: The smaller the earlier.
Rank = tuple[float, bool, float, float, int]


class Candidate:
    """The next job of a class that the plan has not started, and how often it may still be overtaken.

    Of equal priority, waiting included, the tenant goes first that had least, and of its jobs the one whose
    wait is longest for its run: the more so the more devices it takes, which are rarely free together. As any
    wait grows without end, so does this."""

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
        """`top` is the highest priority that waits: nobody ages beyond it."""
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
        #: How long a run of it is taken to last; None where that is unknown. Of a wish there is none.
        self.run_s = 0.0 if job_class.is_prewarm else state.time_estimates.run_s(job_class)
        # Made when they are wanted: a plan makes a thousand heads of which it looks closely at a few.
        self._need_by_capacity: dict[int, int] | None = None
        self._fits_when_empty: dict[str, bool] | None = None
        #: Not every device of its lane will do.
        self.is_device_restricted = bool(job_class.avoided_devices or job_class.allowed_devices)
        self._candidate_ids: set[str] | None = None
        #: How many go in one batch, 0 where there are none, and how many run at once in one executor.
        self.batch_max = state.batch_sizing.batch_max(job_class)
        self.jobs_per_run = state.batch_sizing.jobs_per_run(job_class)
        self.started_count = 0
        self.waiting_count = len(self._backlog)
        self.job_number = self._backlog.first
        self.overtakes_left = state.overtakes.remaining(self.job_number)
        self.rank = self.rank_of(self.job_number)
        #: It was tried and found no room.
        self.is_blocked = False
        #: Bytes that are kept for it while others leave.
        self.claims: tuple[tuple[DeviceCapacity, int], ...] = ()

    @property
    def batch_deadline(self) -> float:
        """When its next batch goes at the latest; what is past where it need not wait: it is full, or
        has gathered long enough, or an executor has to load for it first."""
        if not self.batch_max or self.job_class.key not in self.state.residency.by_key:
            return -math.inf
        return self.state.batch_sizing.batch_deadline(
            self.job_class, self.waiting_count, self._backlog.waiting_since(self.job_number)
        )

    @property
    def run_s_or_default(self) -> float:
        """How long a run of it is taken to last."""
        return UNKNOWN_RUN_S if self.run_s is None else max(1.0, self.run_s)

    def rank_of(self, job_number: int) -> Rank:
        """Where a job of the class stands."""
        waited_s = max(0.0, self._now - self._backlog.waiting_since(job_number))
        run_s = self.run_s_or_default
        priority = self.job_class.priority
        if not self.job_class.is_prewarm:
            priority = min(self._top_priority, priority + int(waited_s / AGEING_S))
        urgency = (waited_s + run_s) / run_s * math.sqrt(self.device_count)
        return (
            -priority,
            self.state.overtakes.remaining(job_number) > 0,
            self._plan_shares.rank(self.job_class),
            -urgency,
            job_number,
        )

    def update_rank(self) -> bool:
        """Whether it stands elsewhere by now, as its tenant was given something."""
        if not self._plan_shares.has_many_tenants or self._plan_shares.rank(self.job_class) == self.rank[2]:
            return False
        self.rank = self.rank_of(self.job_number)
        return True

    def need_for_capacity(self, cap_bytes: int) -> int:
        """What must be free to load it on a device of that size."""
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
        """Whether it is not to run there: others are named, or it failed there and can go elsewhere."""
        if self._candidate_ids is None:
            self._candidate_ids = {
                slot.device.id for slot in self.state.residency.candidate_devices(self.job_class)
            }
        return device_id not in self._candidate_ids

    def may_run_on(self, capacity: DeviceCapacity) -> bool:
        """Whether it may be at work there as things are, were its bytes free."""
        if self.is_device_restricted and self.avoids(capacity.slot.device.id):
            return False
        return capacity.is_idle or not self.job_class.alone_on_device

    def latest_end(self, count: int, *, is_cold: bool) -> float:
        """When they have ended in any case: by then they are stopped."""
        if math.isinf(self.job_class.limit_s):
            return math.inf
        load_s = (self.state.time_estimates.load_s(self.job_class.key) or 0.0) if is_cold else 0.0
        return self._now + load_s + self.job_class.limit_s * -(-count // self.jobs_per_run)

    def expected_end(self, count: int, *, is_cold: bool) -> float:
        """When so many of its runs, begun now, are expected to have ended; inf where that is unknown."""
        if self.run_s is None:
            return math.inf
        load_s = (self.state.time_estimates.load_s(self.job_class.key) or 0.0) if is_cold else 0.0
        return self._now + load_s + self.run_s * -(-count // self.jobs_per_run)

    def peek(self, count: int) -> list[int]:
        """The next jobs of the class."""
        return self._backlog.peek(count, self.started_count)

    def advance(self, count: int) -> None:
        """So many were started."""
        self.started_count += count
        self.waiting_count -= count
        if self.waiting_count:
            self.job_number = self.peek(1)[0]
            self.overtakes_left = self.state.overtakes.remaining(self.job_number)
            self.rank = self.rank_of(self.job_number)

    def fits_when_empty(self, slot: DeviceSlot) -> bool:
        """Whether it could start there if all that runs there ended."""
        if self._fits_when_empty is None:
            self._fits_when_empty = {}
        known = self._fits_when_empty.get(slot.device.id)
        if known is None:
            known = self._fits_when_empty[slot.device.id] = self.state.memory_needs.fits_when_empty(
                self.job_class, slot
            )
        return known
