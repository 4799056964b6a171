"""A driver with cards as a test scripts them: the calls of NVML that we use, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

GIB = 1 << 30


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


@dataclass
class Process:
    pid: int
    usedGpuMemory: int | None


@dataclass
class Event:
    device: Card
    eventData: int
    gpuInstanceId: int = 0xFFFFFFFF


@dataclass
class Memory:
    total: int
    used: int
    free: int
    reserved: int = 0


@dataclass
class Card:
    uuid: str
    name: str = "Fake 24"
    total: int = 24 * GIB
    reserved: int = 1 * GIB
    used: int = 0
    compute: list[Process] = field(default_factory=list)
    graphics: list[Process] = field(default_factory=list)
    #: None: it can't be split; otherwise its instances, None for an empty place.
    instances: list[Card | None] | None = None
    #: Name of a call to the error that it raises.
    errors: dict[str, int] = field(default_factory=dict)


class FakeNvml:
    NVMLError = NVMLError
    NVML_ERROR_UNINITIALIZED = 1
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NO_PERMISSION = 4
    NVML_ERROR_NOT_FOUND = 6
    NVML_ERROR_DRIVER_NOT_LOADED = 9
    NVML_ERROR_LIBRARY_NOT_FOUND = 12
    NVML_ERROR_TIMEOUT = 10
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_ERROR_GPU_IS_LOST = 15
    nvmlMemory_v2 = 0x2000028
    nvmlEventTypeXidCriticalError = 8

    def __init__(self, *cards: Card, init_error: int | None = None) -> None:
        self.cards = list(cards)
        self.init_error = init_error
        self.inits = 0
        #: What cards report; each of those that are registered is told once.
        self.events: list[Event] = []
        self.registered: list[str] = []
        self.event_error: int | None = None

    def nvmlEventSetCreate(self) -> list[Event]:
        self._ready()
        return self.events

    def nvmlEventSetFree(self, events: list[Event]) -> None:
        self._ready()
        self.registered.clear()

    def nvmlDeviceRegisterEvents(self, card: Card, kinds: int, events: list[Event]) -> None:
        self._call("register", card)
        assert kinds == self.nvmlEventTypeXidCriticalError and events is self.events
        self.registered.append(card.uuid)

    def nvmlEventSetWait_v2(self, events: list[Event], timeout_ms: int) -> Event:
        self._ready()
        assert timeout_ms == 0, "a look must not wait"
        if self.event_error is not None:
            raise NVMLError(self.event_error)
        if not events:
            raise NVMLError(self.NVML_ERROR_TIMEOUT)
        return events.pop(0)

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, card: Card) -> Card:
        for whole in self.cards:
            if card in (whole.instances or ()):
                return whole
        raise NVMLError(self.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetGpuInstanceId(self, card: Card) -> int:
        for whole in self.cards:
            if card in (whole.instances or ()):
                return (whole.instances or []).index(card)
        raise NVMLError(self.NVML_ERROR_NOT_SUPPORTED)

    def nvmlInit(self) -> None:
        if self.init_error is not None:
            raise NVMLError(self.init_error)
        self.inits += 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.1"

    def nvmlShutdown(self) -> None:
        self.inits -= 1

    def nvmlDeviceGetCount(self) -> int:
        self._ready()
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        return self._call("handle", self.cards[index])

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:
        self._ready()
        for card in self.cards:
            for each in (card, *(card.instances or ())):
                if each is not None and each.uuid == uuid:
                    return self._call("handle", each)
        raise NVMLError(self.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, card: Card) -> str:
        return self._call("uuid", card).uuid

    def nvmlDeviceGetName(self, card: Card) -> str:
        return self._call("name", card).name

    def nvmlDeviceGetMigMode(self, card: Card) -> list[int]:
        if card.instances is None:
            raise NVMLError(self.NVML_ERROR_NOT_SUPPORTED)
        return [int(bool(card.instances)), 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, card: Card) -> int:
        return len(card.instances or ())

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: Card, index: int) -> Card:
        instance = (card.instances or [])[index]
        if instance is None:
            raise NVMLError(self.NVML_ERROR_NOT_FOUND)
        return self._call("instance", instance)

    def nvmlDeviceGetMemoryInfo(self, card: Card, version: int | None = None) -> Memory:
        self._call("memory" if version is None else "memory2", card)
        if version is None:
            return Memory(card.total, card.used + card.reserved, card.total - card.used - card.reserved)
        return Memory(card.total, card.used, card.total - card.reserved - card.used, card.reserved)

    def nvmlDeviceGetComputeRunningProcesses_v3(self, card: Card) -> list[Process]:
        return self._call("processes3", card).compute

    def nvmlDeviceGetComputeRunningProcesses_v2(self, card: Card) -> list[Process]:
        return self._call("processes2", card).compute

    def nvmlDeviceGetGraphicsRunningProcesses_v3(self, card: Card) -> list[Process]:
        return self._call("processes3", card).graphics

    def nvmlDeviceGetGraphicsRunningProcesses_v2(self, card: Card) -> list[Process]:
        return self._call("processes2", card).graphics

    def _ready(self) -> None:
        if self.inits <= 0:
            raise NVMLError(self.NVML_ERROR_UNINITIALIZED)

    def _call(self, name: str, card: Card) -> Card:
        self._ready()
        if name in card.errors:
            raise NVMLError(card.errors[name])
        return card
