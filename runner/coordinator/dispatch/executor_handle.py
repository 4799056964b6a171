"""Effect: an executor as the coordinator knows it: what it was granted and what it was handed."""

from __future__ import annotations

from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.jobs.usage_meter import UsageMeter
from runner.coordinator.processes.worker_pool import Worker
from runner.handlers.spec import HandlerSpec


class Post:
    """An executor as the coordinator knows it."""

    __slots__ = (
        "devices",
        "executor",
        "grant_bytes",
        "is_batched",
        "is_ceiling",
        "is_lowered",
        "jobs_done",
        "leaving",
        "line",
        "loaded",
        "meter",
        "model",
        "peak_bytes",
        "retired",
        "sent",
        "spec",
        "worker",
    )

    def __init__(
        self,
        executor: int,
        worker: Worker,
        spec: HandlerSpec,
        model: str,
        devices: list[str],
        grant_bytes: int,
    ) -> None:
        self.executor = executor
        self.worker = worker
        self.spec = spec
        #: What `model_by` named; "" for handlers without.
        self.model = model
        self.devices = devices
        self.grant_bytes = grant_bytes
        #: The grant is never raised.
        self.is_ceiling = spec.options.strict
        #: It was granted more once: see `Grants.tell_lowered`.
        self.is_lowered = False
        self.loaded = False
        self.leaving = False
        #: Its handler is another now: it ends what it runs, and goes.
        self.retired = False
        #: Of the time that it is at work; None where it occupies no device.
        self.meter = UsageMeter() if spec.options.gpus else None
        #: It is handed batches.
        self.is_batched = spec.options.batch is not None
        #: Attempts handed over and not ended, by job number, in order.
        self.line: dict[int, LiveJob] = {}
        #: How many of them the worker has been sent.
        self.sent = 0
        self.jobs_done = 0
        #: The most that one of its attempts was seen to use on each device.
        self.peak_bytes = 0

    def parted(self, lives: list[LiveJob]) -> tuple[list[LiveJob], list[LiveJob]]:
        """Those to be started for the first time, and the others. A batch is not parted."""
        later = [live for live in lives if live.job.attempt > 0]
        if not later:
            return lives, later
        return ([], lives) if self.is_batched else ([one for one in lives if not one.job.attempt], later)

    def starts_next(self, *, was_idle: bool) -> bool:
        """Whether the next attempt that it is sent starts at once; `was_idle`: its batch finds it idle."""
        return was_idle if self.is_batched else self.sent < self.spec.options.slots
