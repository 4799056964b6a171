"""Effect: an executor as the coordinator knows it: its grant and the attempts assigned to it."""

from __future__ import annotations

from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.jobs.usage_meter import UsageMeter
from runner.coordinator.processes.worker_pool import WorkerHandle
from runner.handlers.spec import HandlerSpec


class ExecutorHandle:
    """The coordinator's record of an executor."""

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
        #: The value of the `model_by` field; "" for handlers without models.
        self.model = model
        self.devices = devices
        self.grant_bytes = grant_bytes
        #: The grant is never raised.
        self.is_grant_fixed = spec.options.strict
        #: It once had a larger grant: see `Grants.send_lowered_grants`.
        self.was_grant_lowered = False
        self.is_loaded = False
        self.is_closing = False
        #: Its handler has changed: it ends what it runs, and is unloaded.
        self.is_retired = False
        #: Measures the time it is in use; None for an executor that occupies no device.
        self.meter = UsageMeter() if spec.options.gpus else None
        #: It is assigned batches.
        self.is_batched = spec.options.batch is not None
        #: Attempts assigned and not ended, by job number, in order.
        self.attempts: dict[int, LiveJob] = {}
        #: How many of them were sent to the worker.
        self.sent_count = 0
        self.jobs_done = 0
        #: The largest observed use of one of its attempts on each device.
        self.peak_bytes = 0

    def split_first_attempts(self, live_jobs: list[LiveJob]) -> tuple[list[LiveJob], list[LiveJob]]:
        """Split into jobs that start for the first time and the others. A batch is not split."""
        later_attempts = [live for live in live_jobs if live.job.attempt > 0]
        if not later_attempts:
            return live_jobs, later_attempts
        return (
            ([], live_jobs)
            if self.is_batched
            else ([one for one in live_jobs if not one.job.attempt], later_attempts)
        )

    def starts_immediately(self, *, was_idle: bool) -> bool:
        """Whether the next attempt sent to it starts at once; `was_idle`: it was idle before this batch."""
        return was_idle if self.is_batched else self.sent_count < self.spec.options.slots
