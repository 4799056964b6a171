"""Effect: an executor as the coordinator knows it: what it was granted and what it was handed."""

from __future__ import annotations

from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.jobs.usage_meter import UsageMeter
from runner.coordinator.processes.worker_pool import WorkerHandle
from runner.handlers.spec import HandlerSpec


class ExecutorHandle:
    """An executor as the coordinator knows it."""

    __slots__ = (
        "attempts",
        "devices",
        "grant_bytes",
        "is_batched",
        "is_closing",
        "is_grant_fixed",
        "is_loaded",
        "is_retired",
        "jobs_done",
        "meter",
        "model",
        "number",
        "peak_bytes",
        "sent_count",
        "spec",
        "was_grant_lowered",
        "worker",
    )

    def __init__(
        self,
        number: int,
        worker: WorkerHandle,
        spec: HandlerSpec,
        model: str,
        devices: list[str],
        grant_bytes: int,
    ) -> None:
        self.number = number
        self.worker = worker
        self.spec = spec
        #: What `model_by` named; "" for handlers without.
        self.model = model
        self.devices = devices
        self.grant_bytes = grant_bytes
        #: The grant is never raised.
        self.is_grant_fixed = spec.options.strict
        #: It was granted more once: see `Grants.tell_lowered`.
        self.was_grant_lowered = False
        self.is_loaded = False
        self.is_closing = False
        #: Its handler is another now: it ends what it runs, and goes.
        self.is_retired = False
        #: Of the time that it is at work; None where it occupies no device.
        self.meter = UsageMeter() if spec.options.gpus else None
        #: It is handed batches.
        self.is_batched = spec.options.batch is not None
        #: Attempts handed over and not ended, by job number, in order.
        self.attempts: dict[int, LiveJob] = {}
        #: How many of them the worker has been sent.
        self.sent_count = 0
        self.jobs_done = 0
        #: The most that one of its attempts was seen to use on each device.
        self.peak_bytes = 0

    def split_first_attempts(self, live_jobs: list[LiveJob]) -> tuple[list[LiveJob], list[LiveJob]]:
        """Those to be started for the first time, and the others. A batch is not parted."""
        later_attempts = [live for live in live_jobs if live.job.attempt > 0]
        if not later_attempts:
            return live_jobs, later_attempts
        return (
            ([], live_jobs)
            if self.is_batched
            else ([one for one in live_jobs if not one.job.attempt], later_attempts)
        )

    def starts_immediately(self, *, was_idle: bool) -> bool:
        """Whether the next attempt that it is sent starts at once; `was_idle`: its batch finds it idle."""
        return was_idle if self.is_batched else self.sent_count < self.spec.options.slots
