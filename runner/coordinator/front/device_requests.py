"""Effect: drains and resumes devices for fronts, and sets how many executors run there at once."""

from __future__ import annotations

import msgspec

from gpu.devices.device import Device
from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.devices.health_monitor import HealthMonitor
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.observability.resources import ResourceViews
from runner.coordinator.processes.front_pool import FrontHandle
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.coordinator.storage.journal import Journal
from runner.protocol import front as front_protocol

_json = msgspec.json.Encoder().encode


class DeviceRequests:
    """Drains, resumes and limits devices; replies once the change is active and durable.

    `device_document` builds the document of a device as the API shows it.
    """

    def __init__(
        self,
        *,
        device_registry: DeviceRegistry,
        dispatcher: Dispatcher,
        plan_trigger: PlanTrigger,
        health_monitor: HealthMonitor,
        journal: Journal,
        resource_views: ResourceViews,
    ) -> None:
        self._device_registry = device_registry
        self._dispatcher = dispatcher
        self._plan_trigger = plan_trigger
        self._health_monitor = health_monitor
        self._journal = journal
        self._resource_views = resource_views

    async def set_device(self, front: FrontHandle, request: front_protocol.SetDevice) -> None:
        """Drain or resume a device, or set its number of executors; reply with the device's document.

        Raises:
            NotFound: there is no such device.
            StoreUnavailable: the change is active, but not durable.
        """
        device = self._device_registry.get(request.device)
        if request.drained is not None:
            self._set_drained(device, request.drained)
        if request.max_executors is not None:
            self._device_registry.set_max_executors(device, request.max_executors)
        await self._journal.flush()
        front.send(
            front_protocol.encode(
                front_protocol.Reply(
                    request.request_id, 200, _json(self._resource_views.device_document(device))
                )
            )
        )

    def _set_drained(self, device: Device, is_drained: bool) -> None:
        """Drain or resume a device.

        Idle executors are closed, pinned or not; running ones finish their attempts first. Resuming also ends
        a quarantine.
        """
        self._device_registry.set_drained(device, is_drained)
        if not is_drained:
            self._health_monitor.resume_device(device.id)
            return
        for executor in self._dispatcher.executors.on_device(device.id):
            self._dispatcher.control.retire(executor)
        self._plan_trigger.wake()
