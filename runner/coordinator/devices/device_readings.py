"""Effect: applies each device reading to ledger, health and limits; sends fronts the attribution level."""

from __future__ import annotations

from gpu.memory.attribution import AttributionLevel, lowest_level
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.devices.grant_enforcer import GrantEnforcer
from runner.coordinator.devices.health_monitor import HealthMonitor
from runner.coordinator.devices.host_memory_guard import HostMemoryGuard
from runner.coordinator.devices.memory_monitor import MemoryMonitor
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.processes.front_pool import FrontPool
from runner.protocol import front as front_protocol
from runner.protocol.worker import DeviceReadings


class DeviceReadingsHandler:
    """Passes a reading on in a fixed order: ledger, health, grants, the host's memory.

    Later steps read what earlier ones have written: a grant is checked against memory as of this reading.
    """

    def __init__(
        self,
        *,
        scheduler_state: SchedulerState,
        device_registry: DeviceRegistry,
        memory_monitor: MemoryMonitor,
        health_monitor: HealthMonitor,
        grant_enforcer: GrantEnforcer,
        host_memory: HostMemoryGuard,
        dispatcher: Dispatcher,
        front_pool: FrontPool,
    ) -> None:
        self._scheduler_state = scheduler_state
        self._device_registry = device_registry
        self._memory_monitor = memory_monitor
        self._health_monitor = health_monitor
        self._grant_enforcer = grant_enforcer
        self._host_memory = host_memory
        self._dispatcher = dispatcher
        self._front_pool = front_pool
        #: The attribution level that was last sent to fronts.
        self._sent_level: AttributionLevel | None = None

    def on_readings(self, readings: DeviceReadings) -> None:
        """Apply a reading of all devices, which the probe sends about once a second."""
        self._device_registry.on_readings(readings)
        self._health_monitor.on_readings(readings)
        if self._memory_monitor.has_new_context:
            self._memory_monitor.has_new_context = False
            self._dispatcher.resend_caps()
        self._grant_enforcer.check_all()
        self._host_memory.on_readings(readings)
        sent_level, message = self._sent_level, self.memory_level_message()
        if sent_level != self._sent_level:
            self._front_pool.send_all(message)

    def memory_level_message(self) -> bytes:
        """Encode for fronts how exactly the memory in use is attributed: the lowest level of all devices."""
        self._sent_level = lowest_level(
            self._scheduler_state.ledger.usage.level(each) for each in self._device_registry.devices
        )
        return front_protocol.encode(front_protocol.MemoryLevel(self._sent_level))
