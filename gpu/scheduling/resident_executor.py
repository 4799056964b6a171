"""Pure: an executor that lives, and a device with those who live on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from gpu.devices.device import Device
from gpu.job_class import JobClass, Key

ExecutorState = Literal["loading", "idle", "running", "leaving"]


@dataclass(slots=True)
class ResidentExecutor:
    """An executor that lives."""

    executor: int
    #: (handler, version, model)
    key: Key
    devices: tuple[str, ...]
    #: What it was told it may use on each device; its watchdog holds it to that. The ledger may charge less.
    grant_bytes: int
    #: How long it stays loaded when idle; 0 not at all, below 0 for ever.
    keep_alive_s: float
    #: Attempts after which it is replaced. None: never.
    max_jobs: int | None
    #: Its need was unknown: it got all that was free, and nothing starts beside it until that is learned.
    exclusive: bool
    state: ExecutorState = "loading"
    #: Nobody starts beside it until it has loaded.
    loads_alone: bool = False
    #: It leaves, but ends what it runs first: nobody knows when its bytes come.
    finishes_first: bool = False
    #: It loads or has something to do.
    is_busy: bool = True
    #: What it was handed and has not ended, in order of handing over.
    assigned: dict[int, JobClass] = field(default_factory=dict)
    idle_since: float = 0.0
    #: When it took up what it does.
    busy_since: float = 0.0
    #: When all that it was handed is expected to have ended; inf where that is unknown.
    expected_end: float = math.inf
    jobs_done: int = 0
    #: The attempt that has run for longer than short ones do: nothing is staged behind it.
    long_job_number: int | None = None

    @property
    def is_pinned(self) -> bool:
        """It stays loaded whatever else waits."""
        return self.keep_alive_s < 0

    @property
    def is_worn_out(self) -> bool:
        """It was given as many jobs as it may do."""
        return self.max_jobs is not None and self.jobs_done + len(self.assigned) >= self.max_jobs

    def free_places(self, depth: int) -> int:
        """How many more attempts it may be handed at a stage depth."""
        if self.long_job_number is not None:
            return 0
        places = depth - len(self.assigned)
        if self.max_jobs is None:
            return places
        return min(places, self.max_jobs - self.jobs_done - len(self.assigned))


class DeviceSlot:
    """A device with those who live on it."""

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
        #: Which one it is, in order of adding; of two that are as good the earlier one is taken.
        self.order = order
        self.is_gpu = device.kind != "cpu"
        #: Its worker takes executors.
        self.is_open = True
        #: It was tried out, or nothing has gone wrong there yet.
        self.is_proven = True
        #: Why it does not, in one word: "drained"; "" where nothing is to be said of it.
        self.closed_reason = ""
        self.max_executors = device.max_executors
        self.residents: dict[int, ResidentExecutor] = {}
        #: How many of them load or run.
        self.busy_count = 0
        #: Those who idle, the one that idles longest first; who was told to go; who stays for ever.
        self.idle: dict[int, ResidentExecutor] = {}
        self.leaving: dict[int, ResidentExecutor] = {}
        self.pinned: dict[int, ResidentExecutor] = {}
        #: The executor beside which nothing starts now.
        self.exclusive_executor: int | None = None

    @property
    def max_residents(self) -> int:
        """How many executors may live here, idle ones included: each costs host memory and processes."""
        return 2 * self.max_executors
