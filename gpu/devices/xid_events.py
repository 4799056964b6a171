"""Effect: receives from NVML the errors (Xid) that GPUs report, where the driver supports it.

The driver keeps these events in a queue for each client that registered; polling it never blocks. Drivers and
virtual GPUs without events are left unwatched.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

#: Bound on the events of one poll: a faulty GPU may report endlessly. The next poll reads the others.
EVENTS_PER_POLL_MAX = 64
#: NVML's value for an event that concerns no single instance.
_NO_INSTANCE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Watched:
    """One of our devices, and the physical GPU that it is (a part of)."""

    device_id: str
    #: NVML's handle of the physical GPU, and its UUID.
    card: Any
    card_uuid: str
    #: Number of the MIG instance; None: the device is the whole GPU.
    instance: int | None


class XidEvents:
    """The errors of the watched devices, in order of arrival."""

    def __init__(self, nvml: Any) -> None:
        """Watch no device yet; `nvml` is pynvml or a module like it, initialised by the caller."""
        self._nvml = nvml
        self._event_set: Any = None
        #: None for a device whose driver has no events.
        self._watched: dict[str, _Watched | None] = {}

    def watch(self, device_id: str, handle: Any) -> None:
        """Watch a device by its NVML handle.

        Nothing happens where it is watched already or its driver has no events. After any other error the
        next call tries again.
        """
        if device_id in self._watched:
            return
        nvml = self._nvml
        try:
            self._watched[device_id] = self._register(device_id, handle)
        except nvml.NVMLError as error:
            refusals = (
                nvml.NVML_ERROR_NOT_SUPPORTED,
                nvml.NVML_ERROR_NO_PERMISSION,
                nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            )
            if error.value in refusals:
                self._watched[device_id] = None

    def poll(self) -> list[tuple[str, int]]:
        """Return (device id, Xid) of the errors reported since the last call."""
        found: list[tuple[str, int]] = []
        for _ in range(EVENTS_PER_POLL_MAX if self._event_set is not None else 0):
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._event_set, 0)
            except self._nvml.NVMLError as error:
                if error.value != self._nvml.NVML_ERROR_TIMEOUT:
                    # The driver was restarted, or a GPU is gone: all devices register again.
                    self.unregister_all()
                break
            found += [(each.device_id, int(event.eventData)) for each in self._affected_devices(event)]
        return found

    def unregister_all(self) -> None:
        """Drop all registrations, which the driver no longer has: devices must be watched again."""
        self._watched.clear()
        events, self._event_set = self._event_set, None
        if events is None:
            return
        try:
            self._nvml.nvmlEventSetFree(events)
        except self._nvml.NVMLError:
            # It vanished with the driver that was restarted.
            return

    def _register(self, device_id: str, handle: Any) -> _Watched:
        nvml = self._nvml
        if self._event_set is None:
            self._event_set = nvml.nvmlEventSetCreate()
        card, instance = self._card_and_instance(handle)
        uuid = nvml.nvmlDeviceGetUUID(card)
        if all(each is None or each.card_uuid != uuid for each in self._watched.values()):
            nvml.nvmlDeviceRegisterEvents(card, nvml.nvmlEventTypeXidCriticalError, self._event_set)
        return _Watched(device_id, card, uuid, instance)

    def _card_and_instance(self, handle: Any) -> tuple[Any, int | None]:
        """Return the physical GPU of a device, and its instance there; only whole GPUs register events."""
        nvml = self._nvml
        try:
            card = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        except nvml.NVMLError:
            return handle, None
        return card, int(nvml.nvmlDeviceGetGpuInstanceId(handle))

    def _affected_devices(self, event: Any) -> list[_Watched]:
        """Return the devices that an event concerns: one instance where it names one, else all of the GPU."""
        watched = [
            each for each in self._watched.values() if each is not None and self._is_about(event, each)
        ]
        if event.gpuInstanceId == _NO_INSTANCE:
            return watched
        return [each for each in watched if each.instance in (None, event.gpuInstanceId)]

    def _is_about(self, event: Any, watched: _Watched) -> bool:
        """Return whether an event comes from the physical GPU of a device."""
        try:
            return bool(self._nvml.nvmlDeviceGetUUID(event.device) == watched.card_uuid)
        except self._nvml.NVMLError:
            # A GPU that has fallen off the bus does not report its name.
            return _address(event.device) == _address(watched.card)


def _address(handle: Any) -> int:
    return ctypes.addressof(handle.contents) if isinstance(handle, ctypes._Pointer) else id(handle)
