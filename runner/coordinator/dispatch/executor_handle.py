"""Effect: an executor as the coordinator knows it: its state, its grant and the attempts assigned to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.jobs.usage_meter import UsageMeter
from runner.coordinator.processes.worker_pool import WorkerHandle
from runner.handlers.spec import HandlerSpec


class ExecutorHandle:
    """The coordinator's record of an executor.

    All parts read its fields, and only its methods assign them: `tests/test_state_owners.py` checks that. The
    fields are not properties, because several are read for each job.

    An executor loads, runs attempts and closes. A closing executor gets no further attempts. A retired one is
    closing too, but finishes the attempts that run.
    """

    __slots__ = (
        "_attempts",
        "_slots",
        "attempts",
        "devices",
        "grant_bytes",
        "is_batched",
        "is_closing",
        "is_grant_fixed",
        "is_loaded",
        "is_retired",
        "jobs_done",
        "largest_peak_bytes",
        "meter",
        "model",
        "number",
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
        #: Unique as long as the coordinator runs; workers and the API name the executor by this number.
        self.number = number
        #: The worker that started the executor and reports about it.
        self.worker = worker
        #: The handler as it was when the executor was started.
        self.spec = spec
        #: The value of the `model_by` field; "" for handlers without models.
        self.model = model
        #: Ids of the devices that the executor occupies: several for a gang.
        self.devices = devices
        #: Bytes that the executor may use on each of its devices; 0 where memory is not granted.
        self.grant_bytes = grant_bytes
        #: The grant is a ceiling that the handler's author set (`strict`), and is never raised.
        self.is_grant_fixed = spec.options.strict
        #: The executor once had a larger grant: see `Grants.send_lowered_grants`.
        self.was_grant_lowered = False
        #: The worker has reported the end of loading.
        self.is_loaded = False
        #: No further attempts are assigned.
        self.is_closing = False
        #: The executor finishes its running attempts and is then unloaded, for example because its handler
        #: has changed.
        self.is_retired = False
        #: Measures how long the executor is busy; None for an executor that occupies no GPU.
        self.meter = UsageMeter() if spec.options.gpus else None
        #: Attempts are assigned as batches: one call of the handler runs several.
        self.is_batched = spec.options.batch is not None
        self._slots = spec.options.slots
        self._attempts: dict[int, LiveJob] = {}
        #: Attempts assigned and not ended, by job number, in order of assignment.
        self.attempts: Mapping[int, LiveJob] = self._attempts
        #: How many of `attempts` were sent to the worker.
        self.sent_count = 0
        #: Number of attempts that have ended here.
        self.jobs_done = 0
        #: The largest observed use of one of its attempts on each device.
        self.largest_peak_bytes = 0

    # Life cycle.

    def mark_loaded(self) -> None:
        """Record that the executor has loaded its handler and model."""
        self.is_loaded = True

    def mark_closing(self) -> bool:
        """Stop assigning attempts; return False if the executor was closing already."""
        was_closing, self.is_closing = self.is_closing, True
        return not was_closing

    def mark_retired(self) -> bool:
        """Record that the executor is unloaded after its running attempts; return False if it was retired
        already."""
        was_retired, self.is_retired = self.is_retired, True
        return not was_retired

    # Memory.

    def set_grant(self, grant_bytes: int) -> None:
        """Record the bytes that the executor may use on each of its devices from now on."""
        self.grant_bytes = grant_bytes

    def mark_grant_lowered(self) -> None:
        """Record that the grant was lowered to the learned need: a job that needs more has to raise it."""
        self.was_grant_lowered = True

    def record_peak(self, peak_bytes: int) -> bool:
        """Record the observed peak of an attempt on each device; return whether no earlier attempt had a
        larger or equal one."""
        if peak_bytes <= self.largest_peak_bytes:
            return False
        self.largest_peak_bytes = peak_bytes
        return True

    # Attempts. One is assigned, sent to the worker, and then either ends or is recalled.

    def assign_attempts(self, live_jobs: Iterable[LiveJob]) -> None:
        """Add attempts that are not sent to the worker yet."""
        attempts = self._attempts
        for live in live_jobs:
            attempts[live.job.number] = live

    def mark_sent(self, *, was_idle: bool) -> bool:
        """Count an attempt as sent to the worker; return whether it starts at once. `was_idle`: nothing was
        sent before the attempts that are sent together with this one."""
        sent_count = self.sent_count
        self.sent_count = sent_count + 1
        return was_idle if self.is_batched else sent_count < self._slots

    def remove_unsent(self, job_number: int) -> None:
        """Remove an attempt that was never sent to the worker."""
        self._attempts.pop(job_number, None)

    def remove_recalled(self, job_number: int) -> bool:
        """Remove an attempt that was sent and has not started; return False if the executor does not hold
        it."""
        if self._attempts.pop(job_number, None) is None:
            return False
        self.sent_count -= 1
        return True

    def finish_attempt(self, job_number: int) -> None:
        """Remove an attempt that was sent and has ended; no effect if the executor does not hold it."""
        if self._attempts.pop(job_number, None) is not None:
            self.sent_count -= 1
            self.jobs_done += 1

    def split_first_attempts(self, live_jobs: list[LiveJob]) -> tuple[list[LiveJob], list[LiveJob]]:
        """Split into jobs that start for the first time and the others. A batch is not split: all its jobs
        count as others if one of them does."""
        later_attempts = [live for live in live_jobs if live.job.attempt > 0]
        if not later_attempts:
            return live_jobs, later_attempts
        return (
            ([], live_jobs)
            if self.is_batched
            else ([one for one in live_jobs if not one.job.attempt], later_attempts)
        )
