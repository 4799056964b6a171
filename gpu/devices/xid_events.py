"""Effect: hears from NVML which cards reported an error (Xid), where it tells at all.

The driver keeps these events in a queue for whoever registered; looking into it never waits. Drivers and
virtual cards that have no events are gone without.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

#: A card in trouble may report without end; the rest comes with the next look.
EVENTS_PER_POLL_MAX = 64
#: NVML's "this event is of no instance".
_NO_INSTANCE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Watched:
    """A device of ours, and the whole card that it is (a part of)."""

    device_id: str
    card: Any
    card_uuid: str
    #: None: it is the whole card.
    instance: int | None


class XidEvents:
    """The errors of the devices that are watched, as they come."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._event_set: Any = None
        #: None for a device whose driver has no events.
        self._watched: dict[str, _Watched | None] = {}

    def watch(self, device_id: str, handle: Any) -> None:
        """Hear of a device from now on; one that is watched already, or can't be, is passed over."""
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
        """(device id, Xid) of what was reported since the last look."""
        found: list[tuple[str, int]] = []
        for _ in range(EVENTS_PER_POLL_MAX if self._event_set is not None else 0):
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._event_set, 0)
            except self._nvml.NVMLError as error:
                if error.value != self._nvml.NVML_ERROR_TIMEOUT:
                    # The driver was restarted under us, or a card is gone: all register anew.
                    self.unregister_all()
                break
            found += [(each.device_id, int(event.eventData)) for each in self._affected_devices(event)]
        return found

    def unregister_all(self) -> None:
        """The driver forgot us: devices have to be watched anew."""
        self._watched.clear()
        events, self._event_set = self._event_set, None
        if events is None:
            return
        try:
            self._nvml.nvmlEventSetFree(events)
        except self._nvml.NVMLError:
            # Gone with the driver that was restarted.
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
        """The card of a device, and its number there; events are registered with cards only."""
        nvml = self._nvml
        try:
            card = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        except nvml.NVMLError:
            return handle, None
        return card, int(nvml.nvmlDeviceGetGpuInstanceId(handle))

    def _affected_devices(self, event: Any) -> list[_Watched]:
        """The devices an event is about: an instance alone where it names one, else all of the card."""
        watched = [
            each for each in self._watched.values() if each is not None and self._is_about(event, each)
        ]
        if event.gpuInstanceId == _NO_INSTANCE:
            return watched
        return [each for each in watched if each.instance in (None, event.gpuInstanceId)]

    def _is_about(self, event: Any, watched: _Watched) -> bool:
        try:
            return bool(self._nvml.nvmlDeviceGetUUID(event.device) == watched.card_uuid)
        except self._nvml.NVMLError:
            # A card that has fallen off the bus does not tell its name.
            return _address(event.device) == _address(watched.card)


def _address(handle: Any) -> int:
    return ctypes.addressof(handle.contents) if isinstance(handle, ctypes._Pointer) else id(handle)
