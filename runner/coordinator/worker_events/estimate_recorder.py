"""Effect: records the results of runs: in the planner's estimates at once, in the store after a while.

Successful attempts give run times (s) and peaks (bytes per device), loads give load times and resident bytes,
and an attempt that ran out of memory gives a lower bound of the need.
"""

from __future__ import annotations

import logging

import msgspec

from gpu.job_class import JobClass
from gpu.planning.oom_escalation import OomCircumstances
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.jobs.attempt_end import AttemptEnd
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.jobs.retry_decision import BATCH_TOO_LARGE_CODES
from runner.coordinator.jobs.statistics import Statistics
from runner.coordinator.queue.timers import Timers
from runner.coordinator.runtime import value_names
from runner.coordinator.runtime.clock import Clock
from runner.coordinator.runtime.stored_value import parse_value
from runner.coordinator.runtime.value_store import ValueStore
from runner.protocol.worker import ExecutorLoaded

log = logging.getLogger(__name__)

_peaks_decoder = msgspec.json.Decoder(dict[str, dict[str, int]])

#: Attempts shorter than this are not all recorded: thousands end each second, and they are much alike.
#: After SHORT_ATTEMPTS of a handler, one run in SHORT_EVERY is recorded.
SHORT_S = 0.05
SHORT_ATTEMPTS = 1_024
SHORT_EVERY = 256
#: Estimates are stored at most this often: they change with every job, and a crash may lose a few seconds.
STORE_INTERVAL_S = 5.0
#: The code of errors that the device reported; all other memory errors come from our own grants.
DEVICE_OUT_OF_MEMORY = "device_out_of_memory"

_encode = msgspec.msgpack.Encoder().encode


class EstimateRecorder:
    """Records loads and ends of attempts; starts with the estimates that the last coordinator stored.

    All methods run on the event loop.
    """

    def __init__(
        self,
        *,
        scheduler_state: SchedulerState,
        statistics: Statistics,
        timers: Timers,
        clock: Clock,
        values: ValueStore,
    ) -> None:
        self._scheduler_state = scheduler_state
        self._statistics = statistics
        self._timers = timers
        self._clock = clock
        #: Holds the estimates of each model.
        self._values = values
        self._is_store_scheduled = False
        #: Names of stored values that are no longer used.
        self._obsolete_names: list[str] = []
        self._load_stored()

    def on_loaded(self, executor: ExecutorHandle, message: ExecutorLoaded) -> None:
        """Record the load of an executor: its time, and its resident bytes if any were observed.

        Called after the ledger has recorded the executor's usage.
        """
        spec = executor.spec
        resident_bytes = self._scheduler_state.ledger.usage.observed_bytes(executor.number) or None
        self._scheduler_state.estimator.record_load(
            (spec.name, spec.version, executor.model), resident_bytes, message.load_s
        )
        self._statistics.record_run(spec.name, None, None, message.load_s)
        self._schedule_store()

    def on_attempt_ended(
        self,
        executor: ExecutorHandle,
        live: LiveJob,
        end: AttemptEnd,
        circumstances: OomCircumstances | None,
    ) -> None:
        """Record the end of an attempt, which its executor still holds.

        `circumstances` is set if it ran out of device memory. Other failures give no estimate.
        """
        if live.job_class is not None and end.batch_size > 1:
            self._record_batch(live.job_class, end)
        if end.code is None:
            self._record_success(executor, live, end)
        elif circumstances is not None and live.job_class is not None:
            largest = circumstances.largest_bytes
            had_all = largest is not None and circumstances.grant_bytes >= largest
            # Neighbours may have used the memory that this attempt was granted.
            if circumstances.was_alone or end.code != DEVICE_OUT_OF_MEMORY:
                # An attempt that had the whole device shows nothing about the need of others.
                self._scheduler_state.estimator.record_oom(
                    live.job_class, None if had_all else circumstances.grant_bytes
                )
                self._schedule_store()

    def _record_batch(self, job_class: JobClass, end: AttemptEnd) -> None:
        """Record the outcome of a batch: after an out of memory the batch shrinks before any grant grows."""
        if end.is_blame_unknown and end.code in BATCH_TOO_LARGE_CODES:
            self._scheduler_state.batch_sizing.record_oom(job_class, end.batch_size)
        elif end.code is None:
            self._scheduler_state.batch_sizing.record_run(job_class, end.batch_size)

    def store_changes(self) -> None:
        """Store the estimates that have changed; also called at shutdown, before the journal closes."""
        for name in self._obsolete_names:
            self._values.put(name, None)
        self._obsolete_names.clear()
        estimates = self._scheduler_state.estimator
        for handler, model in estimates.changed:
            dumped = estimates.dump(handler, model)
            self._values.put(
                f"{value_names.LEARNED_MODELS}{handler}/{model}", None if dumped is None else _encode(dumped)
            )
        estimates.changed.clear()

    def _record_success(self, executor: ExecutorHandle, live: LiveJob, end: AttemptEnd) -> None:
        """Record the run time and the peak, of short attempts only one in `SHORT_EVERY`.

        A new highest peak of the executor is always recorded.
        """
        spec, run_s = executor.spec, end.run_s
        is_due = self._statistics.record_run(spec.name, live.job.queue, run_s, None)
        if is_due:
            statistics = self._statistics.handlers[spec.name]
            self._scheduler_state.limits.set_stage_depth(spec.name, spec.version, statistics.stage_depth())
            is_due = statistics.run_count <= SHORT_ATTEMPTS or statistics.run_count % SHORT_EVERY == 0
        peak_bytes = self._peak_bytes_per_device(executor, end) if spec.options.gpus else None
        if peak_bytes is not None and executor.record_peak(peak_bytes):
            is_due = True
        if live.job_class is not None and (is_due or run_s is None or run_s >= SHORT_S):
            self._scheduler_state.record_run(live.job_class, peak_bytes, run_s)
            self._schedule_store()

    def _peak_bytes_per_device(self, executor: ExecutorHandle, end: AttemptEnd) -> int | None:
        """Return the peak bytes of the attempt on each of its devices; None if nothing was observed."""
        ledger, peak_bytes = self._scheduler_state.ledger, end.peak_bytes
        if not peak_bytes:
            # An attempt shorter than the watchdog's interval has no peak of its own.
            return ledger.usage.observed_bytes(executor.number) or None
        if ledger.usage.level(executor.devices[0]) == "exact":
            # An exact peak is the sum over all devices.
            return -(-peak_bytes // len(executor.devices))
        return peak_bytes

    def _schedule_store(self) -> None:
        """Store the changes after `STORE_INTERVAL_S`, together with all others until then."""
        if not self._is_store_scheduled:
            self._is_store_scheduled = True
            self._timers.call_at(self._clock.now() + STORE_INTERVAL_S, self._on_store_due)

    def _on_store_due(self) -> None:
        self._is_store_scheduled = False
        self.store_changes()

    def _load_stored(self) -> None:
        """Load the stored estimates; values that can't be read are dropped and learned again."""
        for name, value in self._values.find_by_prefix(value_names.LEARNED_MODELS).items():
            try:
                self._scheduler_state.estimator.load(msgspec.msgpack.decode(value))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
                log.warning("stored estimates %s can't be read and are dropped: %s", name, error)
                self._obsolete_names.append(name)
        old_peaks = self._values.get(value_names.LEARNED_PEAKS)
        if old_peaks is not None:
            self._load_old_peaks(old_peaks)

    def _load_old_peaks(self, value: bytes) -> None:
        """Load the single peak of each handler that an older version stored."""
        peaks = parse_value(value_names.LEARNED_PEAKS, value, _peaks_decoder.decode) or {}
        for handler, models in peaks.items():
            for model, peak_bytes in models.items():
                self._scheduler_state.record_run(
                    JobClass("", handler, "", model, 0, None, 1), peak_bytes, None
                )
        self._obsolete_names.append(value_names.LEARNED_PEAKS)
