"""Effect: attributes device memory: applies readings, processes and torch's figures to the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from gpu.memory.attribution import ProcessOwners
from gpu.memory.context_overhead import ContextOverhead
from gpu.memory.enforcement import EnforcementBackend, cap_bytes
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.runtime import value_names
from runner.coordinator.runtime.clock import Clock
from runner.coordinator.runtime.stored_value import parse_value
from runner.coordinator.runtime.value_store import ValueStore
from runner.protocol.worker import AttemptEnded, DeviceReadings, ExecutorLoaded, ExecutorProcesses

_contexts_decoder = msgspec.json.Decoder(dict[str, dict[str, int]])
#: Readings for one measurement of an idle executor: the first may have begun while an attempt still ran.
READINGS_TO_MEASURE = 2


@dataclass(slots=True)
class _TorchUsage:
    """What an executor on a GPU has reported about torch, and its use while idle."""

    #: Version of torch; empty if the executor has not reported one.
    version: str
    #: Bytes in segments of torch's allocator; None if torch has not used the GPU yet.
    reserved_bytes: int | None
    #: Bytes of other processes on the device when the executor had loaded.
    others_bytes: int
    #: Readings since the executor became idle; negative once its context was measured.
    idle_readings: int = 0


class MemoryMonitor:
    """Updates the ledger from measurements.

    How exactly bytes are attributed depends on the device (its attribution level): readings name processes,
    executors report what torch has reserved, or only the device's total is known. The context overhead, the
    bytes of a process before its first tensor, is measured on idle executors and stored.
    """

    def __init__(
        self,
        *,
        scheduler_state: SchedulerState,
        backend: EnforcementBackend,
        values: ValueStore,
        clock: Clock,
    ) -> None:
        self._scheduler_state = scheduler_state
        self._ledger = scheduler_state.ledger
        self._backend = backend
        #: Holds the measured context overhead, as JSON.
        self._values = values
        name = value_names.CONTEXT_OVERHEAD
        contexts = parse_value(name, values.get(name), _contexts_decoder.decode)
        self._contexts = ContextOverhead() if contexts is None else ContextOverhead.loads(contexts)
        self._clock = clock
        self._owners = ProcessOwners()
        #: Device id -> its processes in the last reading, and their bytes.
        self._processes: dict[str, dict[int, int | None]] = {}
        self._torch: dict[int, _TorchUsage] = {}
        #: Version of the driver, from the first message of the probe.
        self.driver = ""
        #: A context was measured, so that the caps of torch have changed. The caller resends them and resets
        #: this flag.
        self.has_new_context = False

    def on_readings(self, message: DeviceReadings) -> bool:
        """Apply a reading; return whether memory became free, or the memory of an ended executor has
        drained."""
        now, ledger = self._clock.now(), self._ledger
        listed: defaultdict[str, dict[int, int | None]] = defaultdict(dict)
        for device_id, pid, nbytes in message.processes:
            listed[device_id][pid] = nbytes
        has_more = False
        for device_id, total, used, _free in message.devices:
            if device_id in self._scheduler_state.residency.slots:
                before = ledger.free_bytes(device_id)
                self._processes[device_id] = listed[device_id]
                by_executor = self._owners.bytes_by_executor(listed[device_id])
                known_bytes = [nbytes for nbytes in listed[device_id].values() if nbytes is not None]
                listed_bytes = sum(known_bytes) if len(known_bytes) == len(listed[device_id]) else None
                ledger.usage.record_reading(device_id, total, used, now, by_executor, listed_bytes)
                has_more |= ledger.free_bytes(device_id) > before
        for executor in ledger.draining.sweep(now):
            self._owners.remove(executor)
            has_more = True
        for executor in list(self._torch):
            self._measure_context(executor)
        return has_more

    def claim_processes(self, message: ExecutorProcesses) -> None:
        """Record the processes of an executor. The last reading may have counted them as external memory, and
        is corrected."""
        devices = self._ledger.devices_of(message.executor)
        if not devices:
            return
        self._owners.claim(message.executor, message.pids)
        for device_id in devices:
            self._ledger.usage.correct_reading(
                device_id, self._owners.bytes_by_executor(self._processes.get(device_id, {}))
            )

    def on_loaded(self, executor: ExecutorHandle, message: ExecutorLoaded) -> None:
        """Record that an executor has loaded, with what it reports about torch."""
        if executor.grant_bytes and self._ledger.usage.level(executor.devices[0]) != "exact":
            others = self._ledger.usage.last_foreign_bytes(executor.devices[0])
            self._torch[executor.number] = _TorchUsage(message.torch or "", message.reserved_bytes, others)
        if message.reserved_bytes is not None:
            self._record_report(executor, message.reserved_bytes)

    def on_attempt_ended(self, executor: ExecutorHandle, message: AttemptEnded) -> int | None:
        """Record the end of an attempt of an executor with a grant; return the peak of its memory in bytes:
        the larger of the observed use of its processes and the peak that torch reports plus the context."""
        if self._ledger.usage.level(executor.devices[0]) == "exact":
            return message.peak_bytes
        torch = self._torch.get(executor.number)
        if torch is not None:
            torch.reserved_bytes = message.reserved_bytes
            # A context is measured once; the use of an executor without torch, after each attempt.
            torch.idle_readings = 0 if message.reserved_bytes is None else min(0, torch.idle_readings)
        reported = (
            None
            if message.peak_bytes is None
            else message.peak_bytes + self._executor_context_bytes(executor)
        )
        observed = self._ledger.usage.pop_peak(executor.number)
        if message.reserved_bytes is not None:
            self._record_report(executor, message.reserved_bytes)
        return max(reported or 0, observed or 0) or None

    def cap_bytes(self, devices: Sequence[str], grant_bytes: int, executor: int | None) -> int | None:
        """Return the bytes that torch in an executor may reserve on each of its devices; None sets no limit.

        The context overhead is subtracted from the grant. `executor` is None before the executor exists.
        """
        if self._ledger.usage.level(devices[0]) == "exact":
            return None
        torch = self._torch.get(executor) if executor is not None else None
        version = torch.version if torch is not None and torch.version else None
        context = max(self._contexts.minimum_bytes(self._context_key(each), version) or 0 for each in devices)
        return cap_bytes(self._backend, grant_bytes, context)

    def context_bytes(self, device_id: str) -> int | None:
        """Return the bytes that each process uses on the device before its first tensor; None if unknown."""
        return self._contexts.minimum_bytes(self._context_key(device_id))

    def _record_report(self, executor: ExecutorHandle, reserved_bytes: int) -> None:
        """Record what torch reports, plus the context, as the use of an executor."""
        self._ledger.usage.record_report(
            executor.number, reserved_bytes + self._executor_context_bytes(executor)
        )

    def _executor_context_bytes(self, executor: ExecutorHandle) -> int:
        torch = self._torch.get(executor.number)
        version = torch.version if torch is not None and torch.version else None
        return self._contexts.minimum_bytes(self._context_key(executor.devices[0]), version) or 0

    def _context_key(self, device_id: str) -> str:
        """The key of a context overhead: it depends on the device's model and the driver."""
        return f"{self._ledger.device(device_id).name}/{self.driver}"

    def _measure_context(self, executor: int) -> None:
        """Measure the context of an idle executor: the bytes that it holds beyond torch's segments. Without
        torch and without named processes, the use of the executor is the change that it made to the device's
        total."""
        torch = self._torch[executor]
        resident = self._scheduler_state.executors.get(executor)
        if resident is None:
            del self._torch[executor]
            return
        if torch.idle_readings < 0:
            return
        torch.idle_readings = torch.idle_readings + 1 if resident.state == "idle" else 0
        if torch.idle_readings < READINGS_TO_MEASURE:
            return
        torch.idle_readings = -1
        held_bytes = self._held_bytes(executor, resident.devices[0], torch)
        if held_bytes is None:
            return
        if torch.reserved_bytes is None:
            if self._ledger.usage.level(resident.devices[0]) != "processes":
                self._ledger.usage.record_total(executor, max(0, held_bytes) * len(resident.devices))
        elif self._contexts.record(
            self._context_key(resident.devices[0]), torch.version, held_bytes - torch.reserved_bytes
        ):
            self._values.put(value_names.CONTEXT_OVERHEAD, msgspec.json.encode(self._contexts.dumps()))
            self.has_new_context = True

    def _held_bytes(self, executor: int, device_id: str, torch: _TorchUsage) -> int | None:
        """Return the bytes that an executor holds on its device; None if unknown. Where processes are not
        named, they follow from the device's total only while all neighbours are idle and their use is
        known."""
        if self._ledger.usage.level(device_id) == "processes":
            return self._ledger.usage.observed_bytes(executor)
        if self._ledger.draining.pending_bytes(device_id):
            return None
        held_bytes = self._ledger.figures(device_id).used_bytes - torch.others_bytes
        for other, resident in self._scheduler_state.residency.slots[device_id].residents.items():
            if other != executor:
                observed = self._ledger.usage.observed_bytes(other)
                if observed is None or resident.state != "idle":
                    return None
                held_bytes -= observed
        return held_bytes
