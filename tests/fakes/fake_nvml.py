"""Effect: a driver for cards that a test makes up: those C functions of NVML that are used.

The real `pynvml` stands over it, which calls a C library by ctypes. Here that library is an object whose
attributes are Python functions with the same arguments; so names, structs, error classes and versions are
those of the real package. A function that is not here is one that the driver is too old for.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tests.fakes.fake_gpus import EVENT_XID, HOST, Card, CardMemory, Folder, State

SUCCESS = 0
UNINITIALIZED = 1
INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
INSUFFICIENT_SIZE = 7
TIMEOUT = 10
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
UNKNOWN = 999
NOT_AVAILABLE = (1 << 64) - 1
NO_INSTANCE = (1 << 32) - 1
#: How often one that hangs, or waits for an event, looks again.
LOOK_S = 0.01


class Refused(Exception):
    """An NVML error code."""


def load(folder: Folder) -> ModuleType:
    """A `pynvml` of its own over these cards, beside the one that others import."""
    spec = importlib.util.find_spec("pynvml")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # The classes of errors are made in the module that bears its name.
    known = sys.modules.get("pynvml")
    sys.modules["pynvml"] = module
    try:
        spec.loader.exec_module(module)
    finally:
        if known is None:
            del sys.modules["pynvml"]
        else:
            sys.modules["pynvml"] = known
    attach(module, folder)
    return module


def attach(pynvml: ModuleType, folder: Folder) -> None:
    """Have a freshly loaded `pynvml` find this driver."""
    pynvml.nvmlLib = Library(folder)  # type: ignore[attr-defined]


class FakeDriver:
    """`nvml` is a `pynvml` over these cards, for tests of one process; they change the cards in place."""

    def __init__(self, *cards: Card, init_error: int | None = None) -> None:
        self.state = State(cards=list(cards))
        if init_error is not None:
            self.state.errors["nvmlInitWithFlags"] = init_error
        self.nvml = load(CardMemory(self.state))
        self.library: Library = self.nvml.nvmlLib

    def report(self, uuid: str, *xids: int) -> None:
        """Tell of errors of a card or an instance."""
        for xid in xids:
            self.state.events.append((len(self.state.events) + 1, uuid, EVENT_XID, xid))


class Library:
    """What `CDLL("libnvidia-ml.so.1")` gives, for cards in a folder."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        #: Starts without a shutdown.
        self.starts = 0
        #: Handles are places in this list, counted from 1: the driver's handles are pointers, never null.
        self._uuids: list[str] = []
        #: Of each event set the number of the last event that it has given, and what it waits for: (uuid,
        #: types).
        self._sets: dict[int, tuple[list[int], list[tuple[str, int]]]] = {}
        self._rest = threading.Event()
        #: Longest wait for an event that was asked for.
        self.longest_wait_ms = 0

    def restart(self) -> None:
        """The driver is loaded again: what was started and registered is gone."""
        self.starts = 0
        self._sets.clear()

    def registered(self) -> list[str]:
        """The cards whose events are waited for."""
        return [uuid for _, wanted in self._sets.values() for uuid, _ in wanted]

    def __getattr__(self, name: str) -> Callable[..., int]:
        function = getattr(type(self), f"_{name}", None)
        if function is None or name in self._folder.state().missing:
            raise AttributeError(name)

        def call(*args: Any) -> int:
            try:
                self._obstruct(name, args)
                function(self, *args)
            except Refused as refused:
                return int(refused.args[0])
            return SUCCESS

        return call

    # The library.

    def _nvmlInitWithFlags(self, _: int) -> None:
        self.starts += 1

    def _nvmlShutdown(self) -> None:
        self.starts -= 1

    def _nvmlErrorString(self, error: int) -> None:
        raise AttributeError("every error that is made up has a text in pynvml")

    def _nvmlSystemGetDriverVersion(self, text: Any, _: Any) -> None:
        text.value = self._folder.state().driver.encode()

    # Cards.

    def _nvmlDeviceGetCount_v2(self, count: Any) -> None:
        count._obj.value = len(self._folder.state().cards)

    def _nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> None:
        state = self._folder.state()
        if index.value >= len(state.cards):
            raise Refused(NOT_FOUND)
        card = state.cards[index.value]
        self._refuse("nvmlDeviceGetHandleByIndex_v2", state, card)
        self._give(handle, card)

    def _nvmlDeviceGetHandleByUUID(self, uuid: Any, handle: Any) -> None:
        state = self._folder.state()
        card = state.find(uuid.value.decode())
        if card is None:
            raise Refused(NOT_FOUND)
        self._refuse("nvmlDeviceGetHandleByUUID", state, card)
        self._give(handle, card)

    def _nvmlDeviceGetUUID(self, handle: Any, text: Any, _: Any) -> None:
        text.value = self._card(handle).uuid.encode()

    def _nvmlDeviceGetName(self, handle: Any, text: Any, _: Any) -> None:
        text.value = self._card(handle).name.encode()

    def _nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> None:
        instances = self._card(handle).instances
        if instances is None:
            raise Refused(NOT_SUPPORTED)
        current._obj.value = pending._obj.value = int(bool(instances))

    def _nvmlDeviceGetMaxMigDeviceCount(self, handle: Any, count: Any) -> None:
        count._obj.value = len(self._card(handle).instances or ())

    def _nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: Any, found: Any) -> None:
        instance = (self._card(handle).instances or [])[index.value]
        if instance is None:
            raise Refused(NOT_FOUND)
        self._give(found, instance)

    def _nvmlDeviceIsMigDeviceHandle(self, handle: Any, answer: Any) -> None:
        answer._obj.value = int(self._place(self._card(handle).uuid) is not None)

    def _nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: Any, found: Any) -> None:
        card = self._card(handle)
        if self._place(card.uuid) is None:
            raise Refused(NOT_SUPPORTED if card.instances is None else INVALID_ARGUMENT)
        self._give(found, self._whole(card.uuid))

    def _nvmlDeviceGetGpuInstanceId(self, handle: Any, number: Any) -> None:
        place = self._place(self._card(handle).uuid)
        if place is None:
            raise Refused(NOT_SUPPORTED)
        number._obj.value = place

    def _nvmlDeviceGetUtilizationRates(self, handle: Any, rates: Any) -> None:
        rates._obj.gpu = self._card(handle).utilisation

    # Memory.

    def _nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> None:
        card, used = self._used(handle)
        info = memory._obj
        info.total, info.used = card.total, used + card.reserved
        info.free = max(0, card.total - info.used)

    def _nvmlDeviceGetMemoryInfo_v2(self, handle: Any, memory: Any) -> None:
        card, used = self._used(handle)
        info = memory._obj
        info.total, info.reserved, info.used = card.total, card.reserved, used
        info.free = max(0, card.total - card.reserved - used)

    def _nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, found: Any) -> None:
        card = self._card(handle)
        with self._folder.lock():
            ours, _ = self._folder.held(self._folder.state(), card.uuid)
        listed = dict(card.strangers)
        if card.processes != "hidden":
            listed |= {pid + HOST * (card.processes == "host"): nbytes for pid, nbytes in ours.items()}
        if card.processes == "unknown":
            listed = dict.fromkeys(listed)
        _fill(listed, count, found)

    def _nvmlDeviceGetGraphicsRunningProcesses_v3(self, handle: Any, count: Any, found: Any) -> None:
        _fill(self._card(handle).drawing, count, found)

    _nvmlDeviceGetComputeRunningProcesses_v2 = _nvmlDeviceGetComputeRunningProcesses_v3
    _nvmlDeviceGetGraphicsRunningProcesses_v2 = _nvmlDeviceGetGraphicsRunningProcesses_v3

    # Events.

    def _nvmlDeviceGetSupportedEventTypes(self, handle: Any, types: Any) -> None:
        self._card(handle)
        types._obj.value = 0x1F

    def _nvmlEventSetCreate(self, made: Any) -> None:
        number = len(self._sets) + 1
        self._sets[number] = ([len(self._folder.state().events)], [])
        _point(made, number)

    def _nvmlDeviceRegisterEvents(self, handle: Any, types: Any, events: Any) -> None:
        self._sets[_number(events)][1].append((self._card(handle).uuid, types.value))

    def _nvmlEventSetWait_v2(self, events: Any, data: Any, timeout_ms: Any) -> None:
        last, wanted = self._sets[_number(events)]
        self.longest_wait_ms = max(self.longest_wait_ms, timeout_ms.value)
        until = time.monotonic() + timeout_ms.value / 1000
        while True:
            for number, uuid, kind, value in self._folder.state().events[last[0] :]:
                last[0] = number
                card = self._whole(uuid)
                if any(card.uuid == each and kind & types for each, types in wanted):
                    place = self._place(uuid)
                    event = data._obj
                    event.device = ctypes.cast(ctypes.c_void_p(self._handle(card.uuid)), type(event.device))
                    event.eventType, event.eventData = kind, value
                    event.gpuInstanceId = event.computeInstanceId = NO_INSTANCE if place is None else place
                    return
            if time.monotonic() >= until:
                raise Refused(TIMEOUT)
            self._rest.wait(LOOK_S)

    def _nvmlEventSetFree(self, events: Any) -> None:
        del self._sets[_number(events)]

    # What all share.

    def _obstruct(self, name: str, args: tuple[Any, ...]) -> None:
        """Hang, if that is what is wanted now, and refuse what needs a start that was not made."""
        while self._hangs(name, args):
            self._rest.wait(LOOK_S)
        error = self._folder.state().errors.get(name)
        if error is not None:
            raise Refused(error)
        if self.starts <= 0 and name != "nvmlInitWithFlags":
            raise Refused(UNINITIALIZED)
        card = self._about(args)
        if card is not None:
            self._refuse(name, self._folder.state(), card)

    def _hangs(self, name: str, args: tuple[Any, ...]) -> bool:
        state = self._folder.state()
        card = self._about(args)
        hangs = state.hangs + (card.hangs if card is not None else [])
        return name in hangs or "*" in hangs

    def _about(self, args: tuple[Any, ...]) -> Card | None:
        """The card whose handle is the first argument, if one is."""
        if args and type(args[0]).__name__ == "LP_struct_c_nvmlDevice_t":
            return self._folder.state().find(self._uuids[_number(args[0]) - 1])
        return None

    def _refuse(self, name: str, state: State, card: Card) -> None:
        """What is wrong with a card is wrong with its instances too."""
        parent = state.parent(card.uuid) or card
        for errors in (card.errors, parent.errors):
            error = errors.get(name, errors.get("*"))
            if error is not None:
                raise Refused(error)

    def _card(self, handle: Any) -> Card:
        card = self._about((handle,))
        if card is None:
            raise Refused(NOT_FOUND)
        return card

    def _used(self, handle: Any) -> tuple[Card, int]:
        card = self._card(handle)
        with self._folder.lock():
            return card, self._folder.used(self._folder.state(), card.uuid)

    def _give(self, handle: Any, card: Card) -> None:
        _point(handle, self._handle(card.uuid))

    def _whole(self, uuid: str) -> Card:
        """The card that an instance is part of; a card itself."""
        card = self._folder.state().parent(uuid)
        if card is None:
            raise Refused(NOT_FOUND)
        return card

    def _place(self, uuid: str) -> int | None:
        """An instance's number on its card; None for a card."""
        for place, each in enumerate(self._whole(uuid).instances or ()):
            if each is not None and each.uuid == uuid:
                return place
        return None

    def _handle(self, uuid: str) -> int:
        if uuid not in self._uuids:
            self._uuids.append(uuid)
        return self._uuids.index(uuid) + 1


def _fill(listed: dict[int, int | None], count: Any, found: Any) -> None:
    """Write a list of processes, or only its length where it is longer than there is room for."""
    size = count._obj.value
    count._obj.value = len(listed)
    if len(listed) > size:
        raise Refused(INSUFFICIENT_SIZE)
    for place, (pid, nbytes) in enumerate(sorted(listed.items())):
        found[place].pid = pid
        found[place].usedGpuMemory = NOT_AVAILABLE if nbytes is None else nbytes


def _number(pointer: Any) -> int:
    return int(ctypes.cast(pointer, ctypes.c_void_p).value or 0)


def _point(reference: Any, number: int) -> None:
    """Set a pointer that was passed by reference."""
    pointer = reference._obj
    ctypes.cast(ctypes.addressof(pointer), ctypes.POINTER(ctypes.c_void_p))[0] = number
