"""Effect: finds the devices of this machine and reads their memory; the only module that imports NVML.

NVML calls may block for ever on a faulty GPU: they belong in a process of their own, behind a deadline.
"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pynvml

from gpu.devices import cgroups
from gpu.devices.device import Device, GpuRequest, cpu, nvidia, sim
from gpu.devices.xid_events import XidEvents

#: The fault of a GPU that was used as a whole and has since been split into MIG instances.
MIG_SPLIT_FAULT = "lost: the GPU was split into MIG instances after the start; restart the server to use them"


class DeviceError(ValueError):
    """A requested device does not exist or is hidden; the text lists those that are available."""


@dataclass
class FoundDevices:
    """The devices to run on, and what the operator should know about the search."""

    #: GPUs first, the cpu last.
    devices: list[Device]
    #: Sentences for the operator, such as why there is no GPU.
    notes: list[str] = field(default_factory=list)
    #: The driver's version; empty where no GPU was looked for.
    driver: str = ""


@dataclass
class DeviceSample:
    """One reading of all devices."""

    #: (device id, total, used, free) in bytes.
    devices: list[tuple[str, int, int, int]] = field(default_factory=list)
    #: (device id, process id, its bytes there). None: the driver lists the process without its bytes.
    processes: list[tuple[str, int, int | None]] = field(default_factory=list)
    #: Device id to its fault: "lost", or the driver's message.
    faults: dict[str, str] = field(default_factory=dict)
    #: (device id, code) of errors that GPUs reported since the last reading, see `gpu.devices.xid_codes`.
    xids: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Card:
    """A GPU, or a MIG instance of one."""

    #: "GPU-..." or "MIG-...".
    uuid: str
    #: Marketing name.
    name: str
    #: Memory without the driver's part; the machine's RAM for a GPU that shares it.
    total_bytes: int


def find_devices(
    request: GpuRequest,
    environ: Mapping[str, str],
    *,
    nvml: Any = pynvml,
    max_executors: int | None = None,
    headroom_bytes: int | None = None,
    max_resident: int | None = None,
) -> FoundDevices:
    """Find the requested devices. The cpu is always one of them.

    GPUs are numbered in the order of the PCI bus, within an inherited CUDA_VISIBLE_DEVICES (in `environ`).
    `max_executors`, `headroom_bytes` and `max_resident` replace the defaults of each device. Without a usable
    driver there are no GPUs, and the notes say why.

    Raises:
        DeviceError: a named GPU does not exist or is hidden, or there is no usable driver for it.
    """
    if request.kind == "none":
        found = FoundDevices([], ["GPUs are switched off: jobs run on the CPU"])
    elif request.kind == "sim":
        sims = [sim(place, nbytes, max_executors, max_resident) for place, nbytes in enumerate(request.sims)]
        found = FoundDevices(sims, ["GPUs are simulated: memory is counted, nothing is computed on them"])
    else:
        found = _find_cards(request, environ, nvml, (max_executors, headroom_bytes, max_resident))
    found.devices.append(_cpu(max_executors, max_resident))
    return found


def driver_version(nvml: Any = pynvml) -> str | None:
    """Return the NVIDIA driver's version; None where there is no driver, or none that answers."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        return str(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:
        return "unknown"
    finally:
        nvml.nvmlShutdown()


class DeviceSampler:
    """Reads the memory, processes and errors of devices repeatedly.

    NVML is initialised by the first reading of a GPU, and again after the driver was restarted.
    """

    def __init__(self, devices: Sequence[Device], nvml: Any = pynvml, root: Path = Path("/")) -> None:
        """Sample these devices; `root` is the root of the file system with the control groups."""
        self._devices = devices
        self._nvml = nvml
        self._root = root
        self._handles: dict[str, Any] = {}
        self._events = XidEvents(nvml)
        self._is_started = False

    def read_sample(self) -> DeviceSample:
        """Read all devices now. An error of one device is recorded as its fault; the others are still read.

        Simulated devices have no reading. Blocks for as long as the driver does.
        """
        # First: a lost GPU is unregistered below, and its events with it.
        sample = DeviceSample(xids=self._events.poll())
        for device in self._devices:
            if device.kind == "cpu":
                sample.devices.append((device.id, *self._ram()))
            elif device.kind == "nvidia":
                try:
                    self._read_card(device, sample)
                except self._nvml.NVMLError as error:
                    self._handles.pop(device.id, None)
                    sample.faults[device.id] = self._fault(error)
        return sample

    def _read_card(self, device: Device, sample: DeviceSample) -> None:
        """Add the reading of one GPU to the sample. Raises NVMLError; then nothing of it was added."""
        nvml = self._nvml
        if not self._is_started:
            nvml.nvmlInit()
            self._is_started = True
        # An old handle may still answer for an instance that is gone, so it is looked up by name each time.
        handle = None if device.uuid.startswith("MIG-") else self._handles.get(device.id)
        if handle is None:
            handle = self._handles[device.id] = nvml.nvmlDeviceGetHandleByUUID(device.uuid)
        self._events.watch(device.id, handle)
        if not device.uuid.startswith("MIG-") and _instances(nvml, handle):
            sample.faults[device.id] = MIG_SPLIT_FAULT
            return
        memory = _memory(nvml, handle) or self._ram()
        processes = _processes(nvml, handle)
        # Both or none: without its processes a total would look like other programs' bytes.
        sample.devices.append((device.id, *memory))
        sample.processes += [(device.id, pid, nbytes) for pid, nbytes in processes.items()]

    def _ram(self) -> tuple[int, int, int]:
        """Return the machine's memory, for a device that has none of its own."""
        total, used = ram_usage(self._root)
        return total, used, total - used

    def _fault(self, error: Any) -> str:
        """Return the fault that an NVML error stands for, and register again what the error invalidated."""
        nvml = self._nvml
        if error.value == nvml.NVML_ERROR_UNINITIALIZED:
            self._is_started = False
            self._events.unregister_all()
        if error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_NOT_FOUND):
            self._events.unregister_all()
            return "lost"
        return str(error)


def ram_usage(root: Path = Path("/")) -> tuple[int, int]:
    """Return (total, used) bytes of RAM: the machine's, reduced to the limits of this process's groups."""
    memory = psutil.virtual_memory()
    return cgroups.limit_memory(memory.total, memory.available, cgroups.memory_groups(root))


def _cpu(max_executors: int | None, max_resident: int | None) -> Device:
    """Describe this machine, with the cores that this process may use."""
    total, _ = ram_usage()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cpu(_machine_id(), processor_name(), total, cores, max_executors, max_resident)


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's marketing name; the architecture where the kernel does not report one."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.machine()


def _machine_id() -> str:
    """Return a short stable name of this machine that reveals nothing about it."""
    path = Path("/etc/machine-id")
    text = path.read_text().strip() if path.exists() else ""
    return hashlib.sha256((text or socket.gethostname()).encode()).hexdigest()[:12]


def _find_cards(
    request: GpuRequest,
    environ: Mapping[str, str],
    nvml: Any,
    options: tuple[int | None, int | None, int | None],
) -> FoundDevices:
    """Find NVIDIA GPUs; `options` are the executors at work, the headroom in bytes and the executors in
    all of each.

    Raises:
        DeviceError: a named GPU does not exist or is hidden, or there is no driver for it.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        missing = (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED)
        what = "no NVIDIA driver was found"
        if error.value not in missing:
            what = f"the NVIDIA driver does not answer ({error})"
        if request.kind == "named":
            raise DeviceError(
                f"--gpus {_request_text(request)}: {what}, so there is no GPU to use"
            ) from error
        return FoundDevices([], [f"{what}: jobs run on the CPU"])
    try:
        notes: list[str] = []
        cards = list(_cards(nvml, notes))
        visible = _visible(cards, environ, notes)
        indexes = range(len(visible)) if request.kind == "all" else _select_named(request, visible, cards)
        if not indexes:
            why = "no NVIDIA GPU was found" if not cards else "CUDA_VISIBLE_DEVICES hides all GPUs"
            notes.append(f"{why}: jobs run on the CPU")
        found = [
            nvidia(place, visible[place].uuid, visible[place].name, visible[place].total_bytes, *options)
            for place in indexes
        ]
        return FoundDevices(found, notes, str(nvml.nvmlSystemGetDriverVersion()) if found else "")
    finally:
        nvml.nvmlShutdown()


def _cards(nvml: Any, notes: list[str]) -> Iterator[_Card]:
    """Yield all GPUs in the order of the PCI bus; for a GPU that is split, its MIG instances."""
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            for each in _instances(nvml, handle) or [handle]:
                memory = _memory(nvml, each)
                if memory is None:
                    notes.append(
                        f"GPU {index} does not report its memory: it is taken to be the machine's RAM"
                    )
                total = ram_usage()[0] if memory is None else memory[0]
                yield _Card(nvml.nvmlDeviceGetUUID(each), nvml.nvmlDeviceGetName(each), total)
        except nvml.NVMLError as error:
            notes.append(f"GPU {index} is left out: {error}")


def _instances(nvml: Any, handle: Any) -> list[Any]:
    """Return the MIG instances of a GPU; none where it is not split."""
    try:
        if not nvml.nvmlDeviceGetMigMode(handle)[0]:
            return []
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except nvml.NVMLError:
        # GPUs that cannot be split answer "not supported", old drivers "function not found".
        return []
    found: list[Any] = []
    for index in range(count):
        try:
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_NOT_FOUND:
                raise
    return found


def _visible(cards: list[_Card], environ: Mapping[str, str], notes: list[str]) -> list[_Card]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves, in its order.

    As in CUDA, the first name that matches nothing hides itself and all that follow.
    """
    mask = environ.get("CUDA_VISIBLE_DEVICES")
    if mask is None:
        return cards
    visible: list[_Card] = []
    for name in (part.strip() for part in mask.split(",")):
        if name.isascii() and name.isdigit():
            fitting = cards[int(name) : int(name) + 1]
        else:
            fitting = [card for card in cards if name and card.uuid.startswith(name)]
        if len(fitting) != 1 or fitting[0] in visible:
            break
        visible += fitting
    is_by_place = any(part.strip().isdigit() for part in mask.split(","))
    if (
        is_by_place
        and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID"
        and len({card.name for card in cards}) > 1
    ):
        notes.append(
            "CUDA_VISIBLE_DEVICES has indexes on a machine with different GPUs: they are read in the order "
            "of the PCI bus. Set CUDA_DEVICE_ORDER=PCI_BUS_ID or use UUIDs to be sure"
        )
    return visible


def _select_named(request: GpuRequest, visible: list[_Card], cards: list[_Card]) -> list[int]:
    """Return positions among the visible GPUs, in the order of the request.

    A name is a position among them, or the beginning of a UUID that fits exactly one.

    Raises:
        DeviceError: a name fits no visible GPU, more than one, or one that was named before.
    """
    places: list[int] = []
    for name in request.names:
        if isinstance(name, int):
            fitting = [name] if name < len(visible) else []
        else:
            fitting = [place for place, card in enumerate(visible) if card.uuid.startswith(name)]
        if len(fitting) > 1:
            raise DeviceError(
                f"--gpus {_request_text(request)}: {name} matches more than one of {_gpu_list_text(visible)}"
            )
        if not fitting or fitting[0] in places:
            hidden = len(cards) - len(visible)
            raise DeviceError(
                f"--gpus {_request_text(request)}: there is no {'other ' if fitting else ''}GPU {name}; "
                f"available: {_gpu_list_text(visible)}"
                + (f"; CUDA_VISIBLE_DEVICES hides {hidden}" if hidden else "")
            )
        places += fitting
    return places


def _request_text(request: GpuRequest) -> str:
    """Return the names of a request as the operator wrote them."""
    return ",".join(str(name) for name in request.names)


def _gpu_list_text(cards: list[_Card]) -> str:
    return ", ".join(f"{place} ({card.uuid}, {card.name})" for place, card in enumerate(cards)) or "none"


def _memory(nvml: Any, handle: Any) -> tuple[int, int, int] | None:
    """Return (total, used, free) bytes; None where the device has no memory of its own.

    The newer call (nvmlMemory_v2) reports separately what the driver reserves, which is subtracted from the
    total; the older one counts that as used.
    """
    unsupported = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
        return memory.total - memory.reserved, memory.used, memory.free
    except nvml.NVMLError as error:
        if error.value not in unsupported:
            raise
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        return memory.total, memory.used, memory.free
    except nvml.NVMLError as error:
        if error.value not in unsupported:
            raise
    return None


def _processes(nvml: Any, handle: Any) -> dict[int, int | None]:
    """Return the bytes by process id, None where the driver does not report them.

    A process that uses the GPU for compute and for graphics is in both lists with the same figure.
    """
    found: dict[int, int | None] = {}
    for newer, older in (
        (nvml.nvmlDeviceGetComputeRunningProcesses_v3, nvml.nvmlDeviceGetComputeRunningProcesses_v2),
        (nvml.nvmlDeviceGetGraphicsRunningProcesses_v3, nvml.nvmlDeviceGetGraphicsRunningProcesses_v2),
    ):
        for process in _list_processes(nvml, handle, (newer, older)):
            known, nbytes = found.get(process.pid), process.usedGpuMemory
            found[process.pid] = nbytes if known is None else max(known, nbytes or 0)
    return found


def _list_processes(nvml: Any, handle: Any, calls: Sequence[Callable[[Any], list[Any]]]) -> list[Any]:
    """Return the processes from the first of the calls that this driver supports; none where none is."""
    refusals = (
        nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        nvml.NVML_ERROR_NOT_SUPPORTED,
        nvml.NVML_ERROR_NO_PERMISSION,
    )
    for call in calls:
        try:
            return call(handle)
        except nvml.NVMLError as error:
            if error.value not in refusals:
                raise
    return []
