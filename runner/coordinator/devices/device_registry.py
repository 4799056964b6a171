"""Effect: the devices of this node: memory in use, worker, faults and the operator's settings."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

from gpu.devices.device import Device
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.devices.memory_monitor import MemoryMonitor
from runner.coordinator.jobs.statistics import Statistics
from runner.coordinator.processes.worker_pool import WorkerHandle, WorkerPool
from runner.coordinator.runtime import value_names
from runner.coordinator.runtime.clock import Clock
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.coordinator.runtime.stored_value import parse_value
from runner.coordinator.runtime.value_store import ValueStore
from runner.errors import NotFound, RefusedStart
from runner.formats.timestamps import format_rfc3339
from runner.protocol.worker import DeviceReadings, DevicesFound

log = logging.getLogger(__name__)

#: Seconds that the first discovery of devices may take.
DISCOVERY_TIMEOUT_S = 15.0  # guard: first-look
#: A GPU whose memory was not read for this long takes no new work: its free memory is unknown.
READING_MAX_AGE_S = 5.0  # guard: reading-age
#: The number of latest events kept for each device, until the server ends.
EVENTS_KEPT_MAX = 20


def _recent_events() -> deque[dict[str, Any]]:
    return deque(maxlen=EVENTS_KEPT_MAX)


def _describe_stuck(device: Device, executors: Sequence[int]) -> str | None:
    """Describe the fault of a device on which these executors survived SIGKILL; None without any."""
    effect = "its place is lost" if device.kind == "cpu" else "the device takes no new work"
    names = ", ".join(map(str, executors))
    return f"stuck_process: executor {names} survived SIGKILL; {effect}" if executors else None


class DeviceRegistry:
    """The devices that the probe found, with what keeps each of them from taking work.

    A device takes work while its worker is ready, the operator has not drained it, and no cause has a fault.
    The devices are discovered once; a device that vanishes later stays, with a fault.
    """

    def __init__(
        self,
        *,
        scheduler_state: SchedulerState,
        statistics: Statistics,
        memory_monitor: MemoryMonitor,
        clock: Clock,
        plan_trigger: PlanTrigger,
        values: ValueStore,
    ) -> None:
        self._scheduler_state = scheduler_state
        self._statistics = statistics
        self._memory_monitor = memory_monitor
        self._clock = clock
        self._plan_trigger = plan_trigger
        #: Holds the operator's settings of devices.
        self._values = values
        #: Device -> the number of executors that the operator allows at once.
        self._executor_limits: dict[str, int] = {}
        #: Done when the devices are known; its error is a refused start.
        self._discovered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.devices: dict[str, Device] = {}
        #: Devices whose worker is connected and has no backlog.
        self._ready_devices: set[str] = set()
        #: GPU -> time of the last reading of its memory.
        self._read_at: dict[str, float] = {}
        #: Device -> start of the time for which it has had a fault without a break.
        self._faulty_since: dict[str, float] = {}
        #: Executors that survived SIGKILL -> their devices.
        self._stuck: dict[int, tuple[str, ...]] = {}
        #: Devices that take no new work because the operator drained them.
        self.drained_ids: set[str] = set()
        #: Device -> its latest events, the newest last.
        self.events: defaultdict[str, deque[dict[str, Any]]] = defaultdict(_recent_events)
        #: Messages of the probe for operators ("no NVIDIA driver was found: ...").
        self.notes: list[str] = []

    @property
    def has_gpu(self) -> bool:
        """Whether there is a GPU, real or simulated; without one, handlers for GPUs run on the cpu device."""
        return any(device.kind != "cpu" for device in self.devices.values())

    async def wait_until_known(self) -> None:
        """Wait until the devices are known, for DISCOVERY_TIMEOUT_S at most.

        Raises:
            RefusedStart: the devices can't be read in time, or a requested device is missing.
        """
        try:
            await asyncio.wait_for(self._discovered, DISCOVERY_TIMEOUT_S)
        except TimeoutError as error:
            raise RefusedStart(
                f"the GPUs could not be read within {DISCOVERY_TIMEOUT_S:g} s; the driver may hang; "
                "--gpus none starts the server without them"
            ) from error

    def start_workers(self, worker_pool: WorkerPool) -> None:
        """Start a worker for each GPU; the worker of the cpu device starts with the first job that needs
        it."""
        for device in self.devices.values():
            if device.kind != "cpu":
                worker_pool.start_worker(device)

    def on_devices(self, message: DevicesFound) -> None:
        """Add the discovered devices; discoveries of a restarted probe change nothing."""
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
                self.set_fault(device.id, "reading", "its memory has not been read yet")
        self._discovered.set_result(None)

    def on_readings(self, message: DeviceReadings) -> None:
        """Apply a reading of memory and driver faults; request a plan if memory has become free."""
        for device_id, *_ in message.devices:
            if device_id in self._read_at:
                self._read_at[device_id] = self._clock.now()
                self.set_fault(device_id, "reading", None)
        for device_id in self.devices:
            self.set_fault(device_id, "fault", message.faults.get(device_id))  # guard: driver-faults
        if self._memory_monitor.on_readings(message):
            # The memory used by other programs changes: jobs that did not fit may fit now.
            self._plan_trigger.wake()

    def check_reading_ages(self) -> None:
        """Set a fault on each GPU whose last reading is older than READING_MAX_AGE_S."""
        for device_id, read_at in self._read_at.items():
            is_known = "reading" in self._statistics.faults_by_device[device_id]
            if not is_known and self._clock.now() - read_at > READING_MAX_AGE_S:
                self.set_fault(
                    device_id, "reading", f"its memory has not been read for {READING_MAX_AGE_S:g} s"
                )

    def set_fault(self, device_id: str, cause: str, message: str | None) -> None:
        """Set the fault of one cause; None clears it. The device takes no work while one is set."""
        faults = self._statistics.faults_by_device[device_id]
        if faults.get(cause) == message:
            return
        if message is None:
            self.record_event(device_id, "fault_over", f"resolved: {faults.pop(cause)}")
        else:
            faults[cause] = message
            self.record_event(device_id, "fault", message)
            self._faulty_since.setdefault(device_id, self._clock.now())
        if not faults:
            del self._faulty_since[device_id]
        self._update_availability(self.devices[device_id])

    def get_fault(self, device_id: str) -> tuple[str, float] | None:
        """Return the first fault, and since when (UTC epoch seconds) the device has had faults; or None."""
        message = self._statistics.first_fault(device_id)
        return None if message is None else (message, self._faulty_since[device_id])

    def on_worker_ready(self, worker: WorkerHandle) -> None:
        """Let the device of a connected worker take work."""
        if worker.device is not None:
            self._ready_devices.add(worker.device.id)
            self.record_event(worker.device.id, "worker_ready", f"worker {worker.name} is ready")
            self._update_availability(worker.device)

    def on_worker_reconnecting(self, worker: WorkerHandle) -> None:
        """Close the device of a reconnected worker until the worker's backlog is applied."""
        if worker.device is not None:
            self._ready_devices.discard(worker.device.id)
            self._update_availability(worker.device)

    def on_worker_lost(self, worker: WorkerHandle, why: str) -> None:
        """Close the device of a dead worker; refuse the start if the probe died before its discovery."""
        if worker.device is not None:
            self._ready_devices.discard(worker.device.id)
            self.record_event(worker.device.id, "worker_lost", f"worker {worker.name} exited: {why}")
            self._update_availability(worker.device)
        elif not self._discovered.done():
            self._discovered.set_exception(RefusedStart(f"the device probe exited: {why}"))

    def mark_stuck(self, executor: int, device_ids: Sequence[str]) -> set[str]:
        """Record an executor that survived SIGKILL; return the devices that close because of it.

        A GPU is not trusted while a process hangs in its driver; the cpu device loses a place. The bytes of
        the executor stay charged.
        """
        self._stuck[executor] = tuple(device_ids)
        for device_id in device_ids:
            self.record_event(device_id, "stuck_process", f"executor {executor} survived SIGKILL")
            self._update_stuck_fault(self.devices[device_id])
        return {device_id for device_id in device_ids if self.devices[device_id].kind != "cpu"}

    def clear_stuck(self, executor: int) -> None:
        """Clear a stuck executor whose processes have ended after all; its bytes drain from now on."""
        device_ids = self._stuck.pop(executor, ())
        if device_ids:
            self._scheduler_state.ledger.draining.start(executor, self._clock.now())
        for device_id in device_ids:
            self.record_event(device_id, "process_gone", f"executor {executor} has exited after all")
            self._update_stuck_fault(self.devices[device_id])

    def _update_stuck_fault(self, device: Device) -> None:
        """Set or clear the fault of stuck executors, and the number of places that are left."""
        self.set_fault(device.id, "stuck", _describe_stuck(device, self._stuck_executors_on(device)))
        self._update_availability(device)

    def _stuck_executors_on(self, device: Device) -> list[int]:
        return sorted(executor for executor, ids in self._stuck.items() if device.id in ids)

    def context_bytes(self, device: Device) -> int | None:
        """Return the bytes of a process before its first tensor; None until they were measured."""
        return self._memory_monitor.context_bytes(device.id)

    def get(self, name: str) -> Device:
        """Return the device with this id or uuid. Raises NotFound."""
        for device in self.devices.values():
            if name in (device.id, device.uuid):
                return device
        raise NotFound(f"there is no device {name!r}; known devices: {', '.join(self.devices) or 'none'}")

    def set_drained(self, device: Device, is_drained: bool) -> None:
        """Stop or resume new work on the device; the setting survives a restart."""
        if (device.id in self.drained_ids) == is_drained:
            return
        (self.drained_ids.add if is_drained else self.drained_ids.discard)(device.id)
        self._values.put(value_names.DEVICE_DRAINED + device.uuid, b"true" if is_drained else None)
        event_type = "drained" if is_drained else "resumed"
        effect = "takes no new work" if is_drained else "takes work again"
        self.record_event(device.id, event_type, f"set by the operator: {effect}")
        log.info("device %s is %s: %s", device.id, event_type, effect)
        self._update_availability(device)

    def set_max_executors(self, device: Device, count: int) -> None:
        """Limit the executors there at once, also after a restart; 0 restores the configured number."""
        if count == self._executor_limits.get(device.id, 0):
            return
        if count:
            self._executor_limits[device.id] = count
        else:
            self._executor_limits.pop(device.id, None)
        stored = str(count).encode() if count else None
        self._values.put(value_names.DEVICE_MAX_EXECUTORS + device.uuid, stored)
        effect = f"{self.max_executors(device)} executors at once"
        self.record_event(device.id, "max_executors", f"set by the operator: {effect}")
        log.info("device %s: limit set to %s", device.id, effect)
        self._update_availability(device)

    def max_executors(self, device: Device) -> int:
        """Return how many executors may load or run on the device at once."""
        return self._executor_limits.get(device.id, device.max_executors)

    def record_event(self, device_id: str, kind: str, message: str) -> None:
        """Add an event to the device's history. `kind` is a stable word, `message` a sentence."""
        self.events[device_id].append(
            {"at": format_rfc3339(self._clock.now()), "type": kind, "message": message}
        )

    def _restore_settings(self, device: Device) -> None:
        """Restore the settings that the operator made before a restart."""
        if self._values.get(value_names.DEVICE_DRAINED + device.uuid) is not None:
            self.drained_ids.add(device.id)
        name = value_names.DEVICE_MAX_EXECUTORS + device.uuid
        if (count := parse_value(name, self._values.get(name), int)) is not None:
            self._executor_limits[device.id] = count
            self._scheduler_state.residency.set_max_executors(device.id, count)

    def _update_availability(self, device: Device) -> None:
        """Update in the planner's state whether the device takes work, and how many executors at once."""
        is_drained = device.id in self.drained_ids
        # The cpu device is always available: a fault costs it places at most.
        is_faulty = device.kind != "cpu" and self._statistics.first_fault(device.id) is not None
        is_open = device.id in self._ready_devices and not is_drained and not is_faulty
        reason = "drained" if is_drained else "device_fault" if is_faulty else ""
        self._scheduler_state.set_device_open(device.id, is_open, reason)
        lost_slots = len(self._stuck_executors_on(device)) if device.kind == "cpu" else 0
        count = max(0, self.max_executors(device) - lost_slots)
        self._scheduler_state.residency.set_max_executors(device.id, count)
        self._plan_trigger.wake()
