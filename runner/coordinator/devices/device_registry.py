"""Effect: the devices of this node: memory in use, worker, faults and the operator's settings."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpu.devices.device import Device
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.devices.memory_monitor import MemoryMonitor
from runner.coordinator.jobs.statistics import Statistics
from runner.coordinator.processes.worker_pool import WorkerHandle, WorkerPool
from runner.coordinator.runtime import value_names
from runner.errors import NotFound, RefusedStart
from runner.formats.timestamps import format_rfc3339
from runner.protocol.worker import DeviceReadings, DevicesFound

log = logging.getLogger(__name__)

#: Time limit of the first discovery of devices.
DISCOVERY_TIMEOUT_S = 15.0  # guard: first-look
#: A GPU whose memory was not read for this long takes no new work: its free memory is unknown.
READING_MAX_AGE_S = 5.0  # guard: reading-age
#: The number of latest events kept for each device, until the server ends.
EVENTS_KEPT_MAX = 20


def _recent_events() -> deque[dict[str, Any]]:
    return deque(maxlen=EVENTS_KEPT_MAX)


class DeviceRegistry:
    """The devices that the probe found. `devices` is filled once; a vanished device stays, with its fault."""

    def __init__(
        self,
        *,
        scheduler_state: SchedulerState,
        statistics: Statistics,
        memory_monitor: MemoryMonitor,
        now: Callable[[], float],
        wake: Callable[[], None],
        stored_values: Mapping[str, bytes],
        store_value: Callable[[str, bytes | None], None],
    ) -> None:
        self._scheduler_state = scheduler_state
        self._statistics = statistics
        self._memory_monitor = memory_monitor
        self._now = now
        self._wake = wake
        #: The operator's settings of devices, by the names of the stored values; `store_value` stores one.
        self._stored_values = stored_values
        self._store_value = store_value
        #: Device -> the number of executors that the operator allows at once.
        self._executor_limits: dict[str, int] = {}
        self._discovered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.devices: dict[str, Device] = {}
        self._ready_devices: set[str] = set()
        #: GPU -> time of the last reading of its memory.
        self._read_at: dict[str, float] = {}
        #: Device -> time since when it has had a fault.
        self._faulty_since: dict[str, float] = {}
        #: Executors that SIGKILL does not end -> their devices.
        self._stuck: dict[int, tuple[str, ...]] = {}
        #: Devices that take no new work because the operator drained them.
        self.drained_ids: set[str] = set()
        #: Device -> its latest events, the newest last.
        self.events: defaultdict[str, deque[dict[str, Any]]] = defaultdict(_recent_events)
        #: Messages of the probe for people ("no NVIDIA driver was found: ...").
        self.notes: list[str] = []

    @property
    def has_gpu(self) -> bool:
        """Whether handlers for GPUs run on GPUs (or simulated ones) here, not on the cpu device."""
        return any(device.kind != "cpu" for device in self.devices.values())

    async def wait_until_known(self) -> None:
        """Wait until the devices are known.

        Raises:
            RefusedStart: they can't be read, or a requested device is missing.
        """
        try:
            await asyncio.wait_for(self._discovered, DISCOVERY_TIMEOUT_S)
        except TimeoutError as error:
            raise RefusedStart(
                f"the devices could not be read within {DISCOVERY_TIMEOUT_S:g} s (a driver that hangs?); "
                "--gpus none starts without them"
            ) from error

    def start_workers(self, worker_pool: WorkerPool) -> None:
        """Start a worker for each device; that of cpu starts with the first job that needs it."""
        for device in self.devices.values():
            if device.kind != "cpu":
                worker_pool.start_worker(device)

    def on_devices(self, message: DevicesFound) -> None:
        """Take over the first discovery of the probe; later ones of a restarted probe change nothing."""
        if self._discovered.done():
            return
        if message.error is not None:
            self._discovered.set_exception(RefusedStart(message.error))
            return
        self.notes = message.notes
        self._memory_monitor.driver = message.driver
        for fields in message.devices:
            device = Device.from_dict(fields)
            self.devices[device.id] = device
            self._scheduler_state.add_device(device, is_open=False)
            self._restore_settings(device)
            if device.kind == "nvidia":
                self._read_at[device.id] = -math.inf
                self.set_fault(device.id, "reading", "its memory was not read yet")
        self._discovered.set_result(None)

    def on_readings(self, message: DeviceReadings) -> None:
        """Apply a reading; memory that was draining may be free now."""
        for device_id, *_ in message.devices:
            if device_id in self._read_at:
                self._read_at[device_id] = self._now()
                self.set_fault(device_id, "reading", None)
        for device_id in self.devices:
            self.set_fault(device_id, "fault", message.faults.get(device_id))  # guard: driver-faults
        if self._memory_monitor.on_readings(message):
            # The memory used by other programs changes: jobs that did not fit may fit now.
            self._wake()

    def check_reading_ages(self) -> None:
        """Distrust the memory figures of a GPU whose last reading is too old."""
        for device_id, read_at in self._read_at.items():
            is_known = "reading" in self._statistics.faults_by_device[device_id]
            if not is_known and self._now() - read_at > READING_MAX_AGE_S:
                self.set_fault(device_id, "reading", f"its memory was not read for {READING_MAX_AGE_S:g} s")

    def set_fault(self, device_id: str, cause: str, message: str | None) -> None:
        """Set a fault, so that the device takes no new work; None clears the fault of this cause."""
        faults = self._statistics.faults_by_device[device_id]
        if faults.get(cause) == message:
            return
        if message is None:
            self.record_event(device_id, "fault_over", f"no longer: {faults.pop(cause)}")
        else:
            faults[cause] = message
            self.record_event(device_id, "fault", message)
            self._faulty_since.setdefault(device_id, self._now())
        if not faults:
            del self._faulty_since[device_id]
        self._update_availability(self.devices[device_id])

    def get_fault(self, device_id: str) -> tuple[str, float] | None:
        """The device's fault, if it has one, and since when it has had faults without a break."""
        message = self._statistics.first_fault(device_id)
        return None if message is None else (message, self._faulty_since[device_id])

    def on_worker_ready(self, worker: WorkerHandle) -> None:
        """Let the device of a connected worker take work."""
        if worker.device is not None:
            self._ready_devices.add(worker.device.id)
            self.record_event(worker.device.id, "worker_ready", f"worker {worker.name} drives it")
            self._update_availability(worker.device)

    def on_worker_reconnecting(self, worker: WorkerHandle) -> None:
        """Close the device of a reconnected worker until the worker's backlog is applied."""
        if worker.device is not None:
            self._ready_devices.discard(worker.device.id)
            self._update_availability(worker.device)

    def on_worker_lost(self, worker: WorkerHandle, why: str) -> None:
        """Handle the death of a worker or of the probe."""
        if worker.device is not None:
            self._ready_devices.discard(worker.device.id)
            self.record_event(worker.device.id, "worker_lost", f"worker {worker.name} ended: {why}")
            self._update_availability(worker.device)
        elif not self._discovered.done():
            self._discovered.set_exception(RefusedStart(f"the probe of devices ended: {why}"))

    def mark_stuck(self, executor: int, device_ids: Sequence[str]) -> set[str]:
        """Record an executor with a process that SIGKILL does not end; return the devices that close because
        of it.

        A GPU is not trusted while a process hangs in its driver; cpu loses only the executor's place. The
        executor's bytes stay charged.
        """
        self._stuck[executor] = tuple(device_ids)
        for device_id in device_ids:
            self.record_event(device_id, "stuck_process", f"executor {executor} does not die of SIGKILL")
            self._update_stuck_fault(self.devices[device_id])
        return {device_id for device_id in device_ids if self.devices[device_id].kind != "cpu"}

    def clear_stuck(self, executor: int) -> None:
        """Clear a stuck executor: its processes have ended after all."""
        device_ids = self._stuck.pop(executor, ())
        if device_ids:
            self._scheduler_state.ledger.draining.start(executor, self._now())
        for device_id in device_ids:
            self.record_event(device_id, "process_gone", f"executor {executor} is gone after all")
            self._update_stuck_fault(self.devices[device_id])

    def _update_stuck_fault(self, device: Device) -> None:
        stuck = self._stuck_executors_on(device)
        effect = "its place is lost" if device.kind == "cpu" else "the device takes no new work"
        names = ", ".join(map(str, stuck))
        message = f"stuck_process: executor {names} was killed and lives; {effect}" if stuck else None
        self.set_fault(device.id, "stuck", message)
        self._update_availability(device)

    def _stuck_executors_on(self, device: Device) -> list[int]:
        return sorted(executor for executor, ids in self._stuck.items() if device.id in ids)

    def context_bytes(self, device: Device) -> int | None:
        """The bytes that each process uses on the device before its first tensor, if they were measured."""
        return self._memory_monitor.context_bytes(device.id)

    def get(self, name: str) -> Device:
        """Return the device with this id or uuid. Raises NotFound."""
        for device in self.devices.values():
            if name in (device.id, device.uuid):
                return device
        known = ", ".join(self.devices) or "none"
        raise NotFound(f"there is no device {name!r}; known are: {known}")

    def set_drained(self, device: Device, is_drained: bool) -> None:
        """Stop or resume new work on the device; the setting survives a restart."""
        if (device.id in self.drained_ids) == is_drained:
            return
        (self.drained_ids.add if is_drained else self.drained_ids.discard)(device.id)
        self._store_value(value_names.DEVICE_DRAINED + device.uuid, b"true" if is_drained else None)
        event_type, effect = (
            ("drained", "takes no new work") if is_drained else ("resumed", "takes work again")
        )
        self.record_event(device.id, event_type, f"the operator's word: it {effect}")
        log.info("device %s is %s: it %s", device.id, event_type, effect)
        self._update_availability(device)

    def set_max_executors(self, device: Device, count: int) -> None:
        """Set how many executors load or run there at once; 0 restores the configured number."""
        if count == self._executor_limits.get(device.id, 0):
            return
        if count:
            self._executor_limits[device.id] = count
        else:
            self._executor_limits.pop(device.id, None)
        self._store_value(
            value_names.DEVICE_MAX_EXECUTORS + device.uuid, str(count).encode() if count else None
        )
        effect = f"{self.max_executors(device)} executors at once"
        self.record_event(device.id, "max_executors", f"the operator's word: {effect}")
        log.info("device %s: %s from now on", device.id, effect)
        self._update_availability(device)

    def max_executors(self, device: Device) -> int:
        """How many executors may load or run there at once."""
        return self._executor_limits.get(device.id, device.max_executors)

    def record_event(self, device_id: str, kind: str, message: str) -> None:
        """Add an event to the device's history, which the API shows."""
        self.events[device_id].append({"at": format_rfc3339(self._now()), "type": kind, "message": message})

    def _restore_settings(self, device: Device) -> None:
        """Restore the operator's settings from before a restart."""
        if value_names.DEVICE_DRAINED + device.uuid in self._stored_values:
            self.drained_ids.add(device.id)
        count = self._stored_values.get(value_names.DEVICE_MAX_EXECUTORS + device.uuid)
        if count is not None:
            self._executor_limits[device.id] = int(count)
            self._scheduler_state.residency.set_max_executors(device.id, int(count))

    def _update_availability(self, device: Device) -> None:
        """Update whether the device takes work now, and how many executors at once."""
        is_drained = device.id in self.drained_ids
        # The cpu device is always available: a fault costs it places at most.
        is_faulty = device.kind != "cpu" and self._statistics.first_fault(device.id) is not None
        is_open = device.id in self._ready_devices and not is_drained and not is_faulty
        self._scheduler_state.set_device_open(
            device.id, is_open, "drained" if is_drained else "device_fault" if is_faulty else ""
        )
        lost_slots = len(self._stuck_executors_on(device)) if device.kind == "cpu" else 0
        self._scheduler_state.residency.set_max_executors(
            device.id, max(0, self.max_executors(device) - lost_slots)
        )
        self._wake()
