"""Effect: the operator's hand on devices: drain one, resume it, say how many executors run there at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gpu.devices.device import Device
from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.devices.health_monitor import HealthMonitor
from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.processes.front_pool import FrontHandle
from runner.coordinator.storage.journal import Journal
from runner.protocol import front as front_protocol

_json = msgspec.json.Encoder().encode


class DeviceRequests:
    """Answers a front once what was asked for is in force and durable."""

    def __init__(
        self,
        *,
        inventory: DeviceRegistry,
        dispatch: Dispatcher,
        care: HealthMonitor,
        journal: Journal,
        device_document: Callable[[Device], dict[str, Any]],
    ) -> None:
        self._inventory = inventory
        self._dispatch = dispatch
        self._care = care
        self._journal = journal
        #: A device as the API shows it.
        self._device_document = device_document

    async def set_device(self, front: FrontHandle, ask: front_protocol.SetDevice) -> None:
        """Do it. Raises NotFound."""
        device = self._inventory.get(ask.device)
        if ask.drained is not None:
            self._set_drained(device, ask.drained)
        if ask.max_executors is not None:
            self._inventory.set_max_executors(device, ask.max_executors)
        await self._journal.flush()
        front.send(
            front_protocol.encode(
                front_protocol.Reply(ask.request_id, 200, _json(self._device_document(device)))
            )
        )

    def _set_drained(self, device: Device, is_drained: bool) -> None:
        """What idles there goes, pinned or not; what runs there ends first, and takes nothing more."""
        self._inventory.set_drained(device, is_drained)
        if not is_drained:
            self._care.resume_device(device.id)
            return
        for post in self._dispatch.executors.on_device(device.id):
            self._dispatch.control.retire(post)
        self._dispatch.wake()
