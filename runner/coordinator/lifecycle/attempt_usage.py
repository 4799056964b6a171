"""Effect: measures the device time of attempts and adds it to their jobs and to the totals."""

from __future__ import annotations

from runner.coordinator.jobs.attempt_end import AttemptEnd
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.jobs.usage import UsageTotals
from runner.coordinator.jobs.usage_meter import UsageMeter
from runner.coordinator.runtime.value_store import ValueStore
from runner.jobs.job import AttemptRecord, AttemptUsage, Job, JobError


class AttemptUsageRecorder:
    """Completes the record of each attempt and charges its device time to the job, tenant, handler and
    devices.

    Times are UTC epoch seconds. Concurrent attempts of one executor share its time, see `UsageMeter`.
    """

    def __init__(self, totals: UsageTotals, values: ValueStore) -> None:
        self.totals = totals
        #: Holds the totals.
        self._values = values

    def start(self, live: LiveJob, record: AttemptRecord, meter: UsageMeter | None, at: float) -> None:
        """Start to measure an attempt; `meter` is the meter of its executor, if that occupies devices."""
        if meter is not None:
            record.spent = AttemptUsage()
            live.start_meter(meter, at)

    def discard(self, live: LiveJob, now: float) -> None:
        """Discard the attempt in flight, which has not started: its time is not charged."""
        self._measure(live, None, now)

    def end(self, live: LiveJob, end: AttemptEnd, error: JobError | None, now: float) -> None:
        """Complete the record of the attempt that has ended and charge its device time."""
        job = live.job
        seconds = self._measure(live, end, now)
        record = job.attempts[-1] if job.attempts else None
        if record is None or record.attempt != job.attempt:
            return
        record.ended_at = now
        record.load_s, record.run_s = end.load_s, end.run_s
        record.vram_peak_bytes = end.peak_bytes
        record.error = error
        if record.spent is not None:
            # Without a meter the end comes from a worker's spool, after a restart.
            reported_s = (end.load_s or 0.0) + (end.run_s or 0.0)
            self._charge(job, record, reported_s if seconds is None else seconds)

    def _measure(self, live: LiveJob, end: AttemptEnd | None, now: float) -> float | None:
        """Return the seconds of the attempt in flight, which has ended; None if it has no meter."""
        ended_at = now
        if end is not None and end.run_s is not None and end.load_s is None:
            # The ends of several short attempts are reported together.
            ended_at = min(ended_at, (live.job.started_at or ended_at) + end.run_s)
        return live.stop_meter(ended_at)

    def _charge(self, job: Job, record: AttemptRecord, seconds: float) -> None:
        """Charge `seconds` on each device of the attempt; bytes are those granted, not those used."""
        device_s = seconds * len(record.devices)
        record.spent = usage = AttemptUsage(device_s, device_s * record.granted_bytes)
        previous = job.spent or AttemptUsage()
        job.spent = AttemptUsage(previous.device_s + usage.device_s, previous.byte_s + usage.byte_s)
        for name, value in self.totals.add_attempt(job, record, usage):
            self._values.put(name, value)
