"""Pure: an executor that exists, and a device with the executors resident on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from gpu.devices.device import Device
from gpu.job_class import JobClass, Key

ExecutorState = Literal["loading", "idle", "running", "leaving"]


@dataclass(slots=True)
class ResidentExecutor:
    """An executor that exists."""

    executor: int
    #: (handler, version, model)
    key: Key
    devices: tuple[str, ...]
    #: What it may use on each device; its watchdog enforces that. The ledger may charge less.
    grant_bytes: int
    #: How long it stays loaded when idle, in seconds; 0: not at all, below 0: for ever (pinned), inf: until
    #: its capacity is needed.
    keep_alive_s: float
    #: Attempts after which it is replaced. None: never.
    max_jobs: int | None
    #: Its need was unknown: it was granted all that was free, and nothing starts beside it until the need is
    #: learned.
    exclusive: bool
    state: ExecutorState = "loading"
    #: No other executor starts beside it until it has loaded.
    loads_alone: bool = False
    #: It is leaving, but ends what it runs first: when its bytes become free is unknown.
    finishes_first: bool = False
    #: It loads or has jobs.
    is_busy: bool = True
    #: Its jobs that have not ended, in order of assignment.
    assigned: dict[int, JobClass] = field(default_factory=dict)
    idle_since: float = 0.0
    #: When it started its present work.
    busy_since: float = 0.0
    #: When all its assigned jobs should have ended; inf where that is unknown.
    expected_end: float = math.inf
    jobs_done: int = 0
    #: The attempt that has run for longer than a short one: nothing is staged behind it.
    long_job_number: int | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether it stays loaded whatever else waits."""
        return self.keep_alive_s < 0

    @property
    def is_worn_out(self) -> bool:
        """Whether it was assigned all the jobs that it may run."""
        return self.max_jobs is not None and self.jobs_done + len(self.assigned) >= self.max_jobs

    def raise_grant(self, grant_bytes: int) -> None:
        """Raise the grant to these bytes on each device; a smaller value changes nothing."""
        self.grant_bytes = max(self.grant_bytes, grant_bytes)

    def free_places(self, depth: int) -> int:
        """Return how many more attempts it may be assigned at a stage depth."""
        if self.long_job_number is not None:
            return 0
        places = depth - len(self.assigned)
        if self.max_jobs is None:
            return places
        return min(places, self.max_jobs - self.jobs_done - len(self.assigned))


class DeviceSlot:
    """A device with the executors resident on it."""

    __slots__ = (
        "busy_count",
        "closed_reason",
        "device",
        "exclusive_executor",
        "idle",
        "is_gpu",
        "is_open",
        "is_proven",
        "leaving",
        "max_executors",
        "order",
        "pinned",
        "residents",
    )

    def __init__(self, device: Device, order: int = 0) -> None:
        self.device = device
        #: Its index in order of adding; of two equally good devices the lower one is taken.
        self.order = order
        self.is_gpu = device.kind != "cpu"
        #: Its worker takes executors.
        self.is_open = True
        #: It passed a check since its last fault, or had none.
        self.is_proven = True
        #: Why it is not open, in one word such as "drained"; "" where no reason is known.
        self.closed_reason = ""
        self.max_executors = device.max_executors
        self.residents: dict[int, ResidentExecutor] = {}
        #: How many residents load or run.
        self.busy_count = 0
        #: Idle residents, the longest idle first; leaving ones; pinned ones.
        self.idle: dict[int, ResidentExecutor] = {}
        self.leaving: dict[int, ResidentExecutor] = {}
        self.pinned: dict[int, ResidentExecutor] = {}
        #: The executor beside which nothing starts now.
        self.exclusive_executor: int | None = None

    @property
    def max_residents(self) -> int:
        """How many executors may be resident, idle ones included: each costs host memory and processes."""
        return self.device.max_resident

    @property
    def is_full(self) -> bool:
        """Whether as many executors are resident as may be, leaving ones included."""
        return len(self.residents) >= self.max_residents

    @property
    def takes_pin(self) -> bool:
        """Whether one more executor may be pinned here: a place always remains for executors that are not."""
        return len(self.pinned) < self.max_residents - 1
