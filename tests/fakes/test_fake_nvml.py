"""Effect: the driver that is made up answers as the real one does, told by the parts of ours that ask it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gpu.devices.device import parse_gpus
from gpu.devices.discovery import DeviceSampler, driver_version, find_devices
from tests.fakes.fake_gpus import EVENT_XID, GIB, HOST, MIB, NOT_SUPPORTED, Card, FakeGpus
from tests.fakes.fake_nvml import load

A, B = "GPU-a", "GPU-b"
#: Opens the device, holds a GiB, tells so and waits until its input closes.
HOLDER = """
import sys, torch
held = torch.empty(1 << 30, dtype=torch.uint8, device="cuda:0")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus", Card(A), Card(B, name="Fake 80", total=80 * GIB))


@pytest.fixture
def nvml(gpus: FakeGpus) -> ModuleType:
    return load(gpus.folder)


@pytest.fixture
def holder(gpus: FakeGpus) -> Iterator[subprocess.Popen[str]]:
    """A process with a GiB of the first card."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        env=os.environ | gpus.environ() | {"CUDA_VISIBLE_DEVICES": A},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def sampler(nvml: ModuleType) -> DeviceSampler:
    return DeviceSampler(find_devices(parse_gpus("all"), {}, nvml=nvml).devices[:-1], nvml)


def test_the_cards_are_found_with_their_names_and_sizes(nvml: ModuleType) -> None:
    found = find_devices(parse_gpus("all"), {}, nvml=nvml).devices
    assert [(each.id, each.uuid, each.name, each.total_bytes) for each in found[:-1]] == [
        ("gpu0", A, "Fake GPU", 24 * GIB),
        ("gpu1", B, "Fake 80", 79 * GIB),
    ]
    assert driver_version(nvml) == "570.1"


def test_a_process_is_named_with_what_it_holds_until_it_dies(
    gpus: FakeGpus, nvml: ModuleType, holder: subprocess.Popen[str]
) -> None:
    bytes_held = GIB + 256 * MIB
    sample = sampler(nvml).read_sample()
    assert sample.processes == [("gpu0", holder.pid, bytes_held)]
    assert sample.devices[0] == ("gpu0", 24 * GIB, bytes_held, 24 * GIB - bytes_held)
    holder.kill()
    holder.wait()
    sample = sampler(nvml).read_sample()
    assert (sample.processes, sample.devices[0][2]) == ([], 0)


def test_what_the_dead_held_is_let_go_when_the_card_is_told_to(
    gpus: FakeGpus, nvml: ModuleType, holder: subprocess.Popen[str]
) -> None:
    gpus.change(A, holds=True)
    holder.kill()
    holder.wait()
    sample = sampler(nvml).read_sample()
    assert (sample.processes, sample.devices[0][2]) == ([], GIB + 256 * MIB)
    gpus.change(A, holds=False)
    gpus.change(A, holds=True)
    assert sampler(nvml).read_sample().devices[0][2] == 0


@pytest.mark.parametrize(
    ("processes", "listed"),
    [("host", [(HOST, GIB + 256 * MIB)]), ("unknown", [(0, None)]), ("hidden", [])],
)
def test_containers_see_other_pids_no_figures_or_no_processes(
    gpus: FakeGpus,
    nvml: ModuleType,
    holder: subprocess.Popen[str],
    processes: str,
    listed: list[tuple[int, int | None]],
) -> None:
    gpus.change(A, processes=processes)
    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByUUID(A)
    seen = nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)
    assert [(each.pid - holder.pid, each.usedGpuMemory) for each in seen] == listed
    assert sampler(nvml).read_sample().devices[0][2] == GIB + 256 * MIB


def test_others_take_memory_with_and_without_a_name(gpus: FakeGpus, nvml: ModuleType) -> None:
    gpus.change(A, foreign=2 * GIB, strangers={1: 3 * GIB})
    sample = sampler(nvml).read_sample()
    assert (sample.processes, sample.devices[0][2]) == ([("gpu0", 1, 3 * GIB)], 5 * GIB)


def test_a_lost_card_leaves_the_others_alone(gpus: FakeGpus, nvml: ModuleType) -> None:
    reads = sampler(nvml)
    gpus.lose(A)
    sample = reads.read_sample()
    assert sample.faults == {"gpu0": "lost"}
    assert [figures[0] for figures in sample.devices] == ["gpu1"]
    gpus.restore(A)
    assert reads.read_sample().faults == {}


def test_single_calls_fail_and_an_old_driver_lacks_them(gpus: FakeGpus, nvml: ModuleType) -> None:
    gpus.change(A, errors={"nvmlDeviceGetMemoryInfo_v2": NOT_SUPPORTED})
    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByUUID(A)
    with pytest.raises(nvml.NVMLError) as raised:
        nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    assert raised.value.value == nvml.NVML_ERROR_NOT_SUPPORTED
    assert nvml.nvmlDeviceGetMemoryInfo(handle).used == GIB, "the driver's own counts as used"
    with gpus.edit() as state:
        state.errors["nvmlSystemGetDriverVersion"] = nvml.NVML_ERROR_UNKNOWN
        state.missing = ["nvmlDeviceGetComputeRunningProcesses_v2"]
    with pytest.raises(nvml.NVMLError_Unknown):
        nvml.nvmlSystemGetDriverVersion()
    with pytest.raises(nvml.NVMLError_FunctionNotFound):
        nvml.nvmlDeviceGetComputeRunningProcesses_v2(handle)


def test_an_event_is_given_once_to_who_waits_for_its_kind(gpus: FakeGpus, nvml: ModuleType) -> None:
    nvml.nvmlInit()
    gpus.event(A, EVENT_XID, 13)
    events = nvml.nvmlEventSetCreate()
    for uuid in (A, B):
        nvml.nvmlDeviceRegisterEvents(
            nvml.nvmlDeviceGetHandleByUUID(uuid), nvml.nvmlEventTypeXidCriticalError, events
        )
    gpus.event(A, nvml.nvmlEventTypeClock)
    gpus.event(B, EVENT_XID, 79)
    told = nvml.nvmlEventSetWait_v2(events, 1000)
    assert (told.eventType, told.eventData) == (nvml.nvmlEventTypeXidCriticalError, 79)
    assert nvml.nvmlDeviceGetUUID(told.device) == B
    assert told.gpuInstanceId == 0xFFFFFFFF, "it is of no instance"
    gpus.change(A, instances=[None, Card("MIG-1", total=11 * GIB)])
    gpus.event("MIG-1", EVENT_XID, 94)
    told = nvml.nvmlEventSetWait_v2(events, 0)
    assert (nvml.nvmlDeviceGetUUID(told.device), told.gpuInstanceId, told.eventData) == (A, 1, 94)
    with pytest.raises(nvml.NVMLError_Timeout):
        nvml.nvmlEventSetWait_v2(events, 20)
    nvml.nvmlEventSetFree(events)


def test_instances_of_a_card_that_is_split_up_are_devices(gpus: FakeGpus, nvml: ModuleType) -> None:
    parts: list[Card | None] = [Card("MIG-1", total=11 * GIB), None, Card("MIG-2", total=11 * GIB)]
    gpus.change(A, instances=parts)
    reads = sampler(nvml)
    assert [figures[1] for figures in reads.read_sample().devices] == [10 * GIB, 10 * GIB, 79 * GIB]
    nvml.nvmlInit()
    part = nvml.nvmlDeviceGetHandleByUUID("MIG-2")
    assert nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part)) == A
    assert nvml.nvmlDeviceGetGpuInstanceId(part) == 2
    for each in (A, B):
        with pytest.raises(nvml.NVMLError):
            nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvml.nvmlDeviceGetHandleByUUID(each))
    gpus.change(A, instances=[None, Card("MIG-3", total=11 * GIB)])
    assert reads.read_sample().faults == {"gpu0": "lost", "gpu1": "lost"}


def test_a_call_that_hangs_comes_back_when_it_is_let(gpus: FakeGpus) -> None:
    gpus.hang("nvmlDeviceGetMemoryInfo_v2")
    code = (
        "import pynvml; pynvml.nvmlInit(); card = pynvml.nvmlDeviceGetHandleByIndex(0);"
        "print('asks', flush=True);"
        "print(pynvml.nvmlDeviceGetMemoryInfo(card, version=pynvml.nvmlMemory_v2).total)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | gpus.environ(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "asks\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    gpus.answer()
    assert process.communicate(timeout=10)[0] == f"{25 * GIB}\n"
