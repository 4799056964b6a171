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


class Head:
    """The next job of a class that the plan has not started, and how often it may still be overtaken.

    Of equal priority, waiting included, the tenant goes first that had least, and of its jobs the one whose
    wait is longest for its run: the more so the more devices it takes, which are rarely free together. As any
    wait grows without end, so does this."""

    __slots__ = (
        "_can_wait_for",
        "_line",
        "_needs",
        "_now",
        "_reach",
        "_standing",
        "_top",
        "claims",
        "cls",
        "is_blocked",
        "is_gpu",
        "is_picky",
        "most",
        "n",
        "need",
        "per_run",
        "rank",
        "remaining",
        "run_s",
        "span",
        "taken",
        "view",
        "waiting",
    )

    def __init__(
        self, view: SchedulerState, cls: JobClass, now: float, top: int, standing: PlanShares
    ) -> None:
        """`top` is the highest priority that waits: nobody ages beyond it."""
        self.view = view
        self.cls = cls
        self._now = now
        self._top = top
        self._standing = standing
        self._line = view.backlog.by_class[cls]
        self.is_gpu = view.residency.is_on_gpu(cls)
        self.span = view.residency.device_count(cls)
        #: What a new executor must be granted; None where that is unknown.
        self.need = view.memory_needs.need_bytes(cls)
        #: How long a run of it is taken to last; None where that is unknown. Of a wish there is none.
        self.run_s = 0.0 if cls.is_prewarm else view.time_estimates.run_s(cls)
        # Made when they are wanted: a plan makes a thousand heads of which it looks closely at a few.
        self._needs: dict[int, int] | None = None
        self._can_wait_for: dict[str, bool] | None = None
        #: Not every device of its lane will do.
        self.is_picky = bool(cls.avoid or cls.only)
        self._reach: set[str] | None = None
        #: How many go in one batch, 0 where there are none, and how many run at once in one executor.
        self.most = view.batch_sizing.most(cls)
        self.per_run = view.batch_sizing.per_run(cls)
        self.taken = 0
        self.waiting = len(self._line)
        self.n = self._line.first
        self.remaining = view.overtakes.remaining(self.n)
        self.rank = self.rank_of(self.n)
        #: It was tried and found no room.
        self.is_blocked = False
        #: Bytes that are kept for it while others leave.
        self.claims: tuple[tuple[DeviceCapacity, int], ...] = ()

    @property
    def gathers_until(self) -> float:
        """When its next batch goes at the latest; what is past where it need not wait: it is full, or
        has gathered long enough, or an executor has to load for it first."""
        if not self.most or self.cls.key not in self.view.residency.by_key:
            return -math.inf
        return self.view.batch_sizing.full_at(self.cls, self.waiting, self._line.waiting_since(self.n))

    @property
    def run_or_guess_s(self) -> float:
        """How long a run of it is taken to last."""
        return UNKNOWN_RUN_S if self.run_s is None else max(1.0, self.run_s)

    def rank_of(self, n: int) -> Rank:
        """Where a job of the class stands."""
        waited_s = max(0.0, self._now - self._line.waiting_since(n))
        run_s = self.run_or_guess_s
        level = self.cls.priority
        if not self.cls.is_prewarm:
            level = min(self._top, level + int(waited_s / AGEING_S))
        urgency = (waited_s + run_s) / run_s * math.sqrt(self.span)
        return -level, self.view.overtakes.remaining(n) > 0, self._standing.rank(self.cls), -urgency, n

    def has_moved(self) -> bool:
        """Whether it stands elsewhere by now, as its tenant was given something."""
        if not self._standing.has_many_tenants or self._standing.rank(self.cls) == self.rank[2]:
            return False
        self.rank = self.rank_of(self.n)
        return True

    def need_on(self, cap_bytes: int) -> int:
        """What must be free to load it on a device of that size."""
        if self.cls.need_bytes is not None and self.need == self.cls.need_bytes:
            return self.cls.need_bytes
        if self._needs is None:
            self._needs = {}
        need = self._needs.get(cap_bytes)
        if need is None:
            need = self._needs[cap_bytes] = self.view.memory_needs.need_for_capacity(self.cls, cap_bytes)
        return need

    def avoids(self, device_id: str) -> bool:
        """Whether it is not to run there: others are named, or it failed there and can go elsewhere."""
        if self._reach is None:
            self._reach = {slot.device.id for slot in self.view.residency.candidate_devices(self.cls)}
        return device_id not in self._reach

    def suits(self, room: DeviceCapacity) -> bool:
        """Whether it may be at work there as things are, were its bytes free."""
        if self.is_picky and self.avoids(room.slot.device.id):
            return False
        return room.is_idle or not self.cls.alone

    def surely_until(self, count: int, *, loads: bool) -> float:
        """When they have ended in any case: by then they are stopped."""
        if math.isinf(self.cls.limit_s):
            return math.inf
        load_s = (self.view.time_estimates.load_s(self.cls.key) or 0.0) if loads else 0.0
        return self._now + load_s + self.cls.limit_s * -(-count // self.per_run)

    def until(self, count: int, *, loads: bool) -> float:
        """When so many of its runs, begun now, are expected to have ended; inf where that is unknown."""
        if self.run_s is None:
            return math.inf
        load_s = (self.view.time_estimates.load_s(self.cls.key) or 0.0) if loads else 0.0
        return self._now + load_s + self.run_s * -(-count // self.per_run)

    def peek(self, count: int) -> list[int]:
        """The next jobs of the class."""
        return self._line.peek(count, self.taken)

    def advance(self, count: int) -> None:
        """So many were started."""
        self.taken += count
        self.waiting -= count
        if self.waiting:
            self.n = self.peek(1)[0]
            self.remaining = self.view.overtakes.remaining(self.n)
            self.rank = self.rank_of(self.n)

    def can_wait_for(self, slot: DeviceSlot) -> bool:
        """Whether it could start there if all that runs there ended."""
        if self._can_wait_for is None:
            self._can_wait_for = {}
        known = self._can_wait_for.get(slot.device.id)
        if known is None:
            known = self._can_wait_for[slot.device.id] = self.view.memory_needs.fits_when_empty(
                self.cls, slot
            )
        return known
