"""Effect: unloads idle executors while the host runs short of memory."""

from __future__ import annotations

import logging

from gpu.memory.host_memory import UNKNOWN_HOST_BYTES, HostMemory, IdleHostMemory, choose_unloads
from gpu.scheduling.resident_executor import ResidentExecutor
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.formats.units import format_bytes
from runner.protocol.worker import DeviceReadings

log = logging.getLogger(__name__)

#: Kind of the event in the history of the cpu device.
HOST_MEMORY_EVENT = "host_memory"


class HostMemoryGuard:
    """Compares each reading of the host's memory with what must stay available.

    Which executors go is decided by `gpu.memory.host_memory`. Each round is an event of the cpu device, and a
    preload that goes is tried again as after a failed load.
    """

    def __init__(
        self,
        *,
        scheduler_state: SchedulerState,
        device_registry: DeviceRegistry,
        dispatcher: Dispatcher,
        plan_trigger: PlanTrigger,
    ) -> None:
        self._scheduler_state = scheduler_state
        self._device_registry = device_registry
        self._dispatcher = dispatcher
        self._plan_trigger = plan_trigger

    def on_readings(self, readings: DeviceReadings) -> None:
        """Unload what has to go after a reading; the reading of the cpu device is that of the host."""
        for device_id, total_bytes, _used, available_bytes in readings.devices:
            device = self._device_registry.devices.get(device_id)
            if device is not None and device.kind == "cpu":
                self._relieve(device_id, HostMemory(total_bytes, available_bytes))

    def _relieve(self, cpu_id: str, memory: HostMemory) -> None:
        if not memory.lacking_bytes:
            return
        residents = list(self._scheduler_state.executors.values())
        leaving_bytes = sum(
            self._host_bytes(each) or UNKNOWN_HOST_BYTES for each in residents if each.state == "leaving"
        )
        idle = [
            IdleHostMemory(each.executor, self._host_bytes(each), each.idle_since, each.is_pinned)
            for each in residents
            if each.state == "idle"
        ]
        chosen = choose_unloads(memory, idle, leaving_bytes)
        if not chosen:
            return
        pinned = sum(each.executor in chosen and each.is_pinned for each in idle)
        why = (
            f"{format_bytes(memory.available_bytes)} of the host's {format_bytes(memory.total_bytes)} were "
            f"available, less than {format_bytes(memory.short_bytes)}"
        )
        for executor in chosen:
            self._dispatcher.prewarming.on_unloaded_for_memory(self._dispatcher.executors[executor], why)
            self._dispatcher.control.unload(executor)
        message = f"{why}: unloading {len(chosen)} idle executors, {pinned} of them pinned"
        self._device_registry.record_event(cpu_id, HOST_MEMORY_EVENT, message)
        log.warning("%s", message)
        self._plan_trigger.wake()

    def _host_bytes(self, resident: ResidentExecutor) -> int | None:
        """Return the host memory of an executor; None on a GPU, where only the device's is measured."""
        if any(self._scheduler_state.residency.slots[each].is_gpu for each in resident.devices):
            return None
        return self._scheduler_state.ledger.usage.observed_bytes(resident.executor)
