from __future__ import annotations

from pathlib import Path

import pytest

from gpu.devices.device import Device, parse_gpus
from gpu.devices.discovery import (
    DeviceError,
    DeviceSampler,
    FoundDevices,
    driver_version,
    find_devices,
    processor_name,
    ram_usage,
)
from tests.fakes.fake_gpus import GIB, LOST, Card
from tests.fakes.fake_nvml import (
    FUNCTION_NOT_FOUND,
    LIBRARY_NOT_FOUND,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
    FakeDriver,
)

MEMORY, OLD_MEMORY = "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo"
PROCESSES, OLD_PROCESSES = (
    [f"nvmlDeviceGet{kind}RunningProcesses_v{version}" for kind in ("Compute", "Graphics")]
    for version in (3, 2)
)
A, B, C = (Card(f"GPU-{letter}1111") for letter in "abc")


def found(gpus: str, *cards: Card, **environ: str) -> FoundDevices:
    return find_devices(parse_gpus(gpus), environ, nvml=FakeDriver(*cards).nvml)


def ids(devices: list[Device]) -> list[str]:
    return [f"{device.id}={device.uuid}" for device in devices if device.kind != "cpu"]


def test_all_are_found_in_bus_order_with_the_cpu_last() -> None:
    there = found("all", A, B)
    assert ids(there.devices) == ["gpu0=GPU-a1111", "gpu1=GPU-b1111"]
    assert there.devices[-1].id == "cpu" and there.devices[-1].uuid.startswith("cpu-")
    assert there.notes == []


def test_the_total_is_without_what_the_driver_keeps() -> None:
    assert found("all", A).devices[0].total_bytes == 24 * GIB


@pytest.mark.parametrize(
    ("mask", "gpus", "expected"),
    [
        ("1,0", "all", ["gpu0=GPU-b1111", "gpu1=GPU-a1111"]),
        ("2", "0", ["gpu0=GPU-c1111"]),
        ("2,0", "1", ["gpu1=GPU-a1111"]),
        ("GPU-b,0", "all", ["gpu0=GPU-b1111", "gpu1=GPU-a1111"]),
        ("0,9,1", "all", ["gpu0=GPU-a1111"]),
        ("0,-1,1", "all", ["gpu0=GPU-a1111"]),
        ("0,0", "all", ["gpu0=GPU-a1111"]),
        ("GPU-", "all", []),
        ("", "all", []),
        ("1,2", "GPU-c", ["gpu1=GPU-c1111"]),
    ],
)
def test_places_count_inside_the_inherited_mask(mask: str, gpus: str, expected: list[str]) -> None:
    assert ids(found(gpus, A, B, C, CUDA_VISIBLE_DEVICES=mask).devices) == expected


def test_the_headroom_is_the_operators_where_one_is_given() -> None:
    devices = find_devices(parse_gpus("all"), {}, nvml=FakeDriver(A).nvml, headroom_bytes=GIB).devices
    assert (devices[0].headroom_bytes, devices[0].cap_bytes) == (GIB, 23 * GIB)


def test_a_mask_that_hides_all_is_told() -> None:
    assert found("all", A, CUDA_VISIBLE_DEVICES="").notes == [
        "CUDA_VISIBLE_DEVICES hides all GPUs: jobs run on the CPU"
    ]
    assert found("all").notes == ["no NVIDIA GPU was found: jobs run on the CPU"]


def test_places_on_different_cards_without_an_order_are_told_to_be_doubtful() -> None:
    other = Card("GPU-d", name="Fake 80")
    assert "CUDA_DEVICE_ORDER" in found("all", A, other, CUDA_VISIBLE_DEVICES="0").notes[0]
    ordered = found("all", A, other, CUDA_VISIBLE_DEVICES="0", CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert ordered.notes == []
    assert found("all", A, B, CUDA_VISIBLE_DEVICES="0").notes == []
    assert found("all", A, other, CUDA_VISIBLE_DEVICES="GPU-a").notes == []


@pytest.mark.parametrize(
    ("gpus", "mask", "words"),
    [
        ("2", None, ["no GPU 2", "0 (GPU-a1111, Fake GPU)", "1 (GPU-b1111, Fake GPU)"]),
        ("GPU-x", None, ["no GPU GPU-x"]),
        ("GPU-b", "0", ["no GPU GPU-b", "CUDA_VISIBLE_DEVICES hides 1"]),
        ("0", "", ["available: none", "hides 2"]),
        ("GPU-", None, ["is neither"]),
        ("GPU-a,0", None, ["no other GPU 0"]),
    ],
)
def test_a_named_gpu_that_is_not_there_is_refused_with_what_is(
    gpus: str, mask: str | None, words: list[str]
) -> None:
    environ = {} if mask is None else {"CUDA_VISIBLE_DEVICES": mask}
    with pytest.raises(ValueError) as caught:
        found(gpus, A, B, **environ)
    assert all(word in str(caught.value) for word in words)


def test_a_uuid_that_fits_two_is_refused() -> None:
    with pytest.raises(DeviceError, match="more than one"):
        found("GPU-a", A, Card("GPU-a2222"))


def test_without_a_driver_jobs_run_on_the_cpu_unless_a_gpu_was_named() -> None:
    nvml = FakeDriver(init_error=LIBRARY_NOT_FOUND).nvml
    there = find_devices(parse_gpus("all"), {}, nvml=nvml)
    assert ids(there.devices) == []
    assert there.notes == ["no NVIDIA driver was found: jobs run on the CPU"]
    with pytest.raises(DeviceError, match="no NVIDIA driver was found"):
        find_devices(parse_gpus("0"), {}, nvml=nvml)


def test_a_driver_that_does_not_answer_is_told_apart_from_none() -> None:
    nvml = FakeDriver(init_error=UNKNOWN).nvml
    assert "does not answer (Unknown Error)" in find_devices(parse_gpus("all"), {}, nvml=nvml).notes[0]


def test_a_broken_card_is_left_out_and_told() -> None:
    broken = Card("GPU-x", errors={"nvmlDeviceGetHandleByIndex_v2": LOST})
    there = found("all", A, broken, B)
    assert ids(there.devices) == ["gpu0=GPU-a1111", "gpu1=GPU-b1111"]
    assert there.notes == ["GPU 1 is left out: GPU is lost"]


def test_of_a_card_that_is_split_up_the_instances_are_the_devices() -> None:
    small = Card("MIG-1", "slice", 5 * GIB, 0)
    split = Card("GPU-x", instances=[None, small])
    assert ids(found("all", split, A).devices) == ["gpu0=MIG-1", "gpu1=GPU-a1111"]
    assert ids(found("MIG-1", Card("GPU-y", instances=[]), split).devices) == ["gpu1=MIG-1"]


def test_an_instance_that_fails_is_told() -> None:
    split = Card("GPU-x", instances=[Card("MIG-1")], errors={"nvmlDeviceGetMigDeviceHandleByIndex": LOST})
    assert found("all", split).notes[0] == "GPU 0 is left out: GPU is lost"


def test_a_part_without_memory_of_its_own_is_taken_with_the_machines() -> None:
    unified = Card("GPU-u", errors={MEMORY: FUNCTION_NOT_FOUND, OLD_MEMORY: NOT_SUPPORTED})
    there = found("all", unified)
    assert there.devices[0].total_bytes == ram_usage()[0]
    assert "does not report its memory" in there.notes[0]


@pytest.mark.parametrize(("gpus", "expected"), [("none", []), ("sim:2x1GiB", ["sim0=SIM-0", "sim1=SIM-1"])])
def test_the_driver_is_not_asked_where_it_is_not_wanted(gpus: str, expected: list[str]) -> None:
    there = find_devices(parse_gpus(gpus), {}, nvml=None, max_executors=3, max_resident=5)
    assert ids(there.devices) == expected
    assert {(device.max_executors, device.max_resident) for device in there.devices} == {(3, 5)}
    assert len(there.notes) == 1


def test_what_was_opened_is_closed() -> None:
    driver = FakeDriver(A)
    find_devices(parse_gpus("all"), {}, nvml=driver.nvml)
    assert driver.library.starts == 0


def sampler(*cards: Card) -> tuple[DeviceSampler, FakeDriver]:
    driver = FakeDriver(*cards)
    return DeviceSampler(find_devices(parse_gpus("all"), {}, nvml=driver.nvml).devices, driver.nvml), driver


def test_a_reading_has_every_device_and_the_processes_on_them() -> None:
    one = Card("GPU-1", foreign=1 * GIB, strangers={7: 3 * GIB}, drawing={7: 3 * GIB})
    two = Card("GPU-2", strangers={7: 1 * GIB, 8: None})
    sample = sampler(one, two)[0].read_sample()
    assert sample.devices[:2] == [
        ("gpu0", 24 * GIB, 4 * GIB, 20 * GIB),
        ("gpu1", 24 * GIB, 1 * GIB, 23 * GIB),
    ]
    assert sample.processes == [("gpu0", 7, 3 * GIB), ("gpu1", 7, GIB), ("gpu1", 8, None)]
    assert sample.faults == {}
    name, total, used, free = sample.devices[2]
    assert (name, total) == ("cpu", used + free)


def test_an_old_driver_is_read_by_its_older_calls() -> None:
    errors = dict.fromkeys([MEMORY, *PROCESSES], FUNCTION_NOT_FOUND)
    old = Card("GPU-1", foreign=3 * GIB, strangers={7: GIB}, errors=errors)
    sample = sampler(old)[0].read_sample()
    assert sample.devices[0] == ("gpu0", 25 * GIB, 5 * GIB, 20 * GIB)
    assert sample.processes == [("gpu0", 7, GIB)]


def test_a_card_without_memory_of_its_own_is_as_full_as_the_machine() -> None:
    errors = dict.fromkeys([MEMORY, OLD_MEMORY, *PROCESSES], NOT_SUPPORTED)
    mute = Card("GPU-1", errors=errors | dict.fromkeys(OLD_PROCESSES, NO_PERMISSION))
    sample = sampler(mute)[0].read_sample()
    (_, total, used, free), (_, *machine) = sample.devices
    assert machine[0] == total == used + free
    assert sample.faults == {} and sample.processes == []


def test_a_process_that_computes_and_draws_is_told_by_the_list_that_knows() -> None:
    both = Card("GPU-1", strangers={7: None, 9: 2 * GIB}, drawing={7: GIB, 8: None, 9: None})
    assert sampler(both)[0].read_sample().processes == [
        ("gpu0", 7, GIB),
        ("gpu0", 9, 2 * GIB),
        ("gpu0", 8, None),
    ]


def test_of_an_instance_its_own_memory_and_processes_are_read() -> None:
    small = Card("MIG-1", "slice", 5 * GIB, 0, strangers={7: 2 * GIB})
    other = Card("MIG-2", "slice", 10 * GIB, 0, strangers={8: GIB})
    split = Card("GPU-x", strangers={9: 3 * GIB}, instances=[small, None, other])
    reader, _ = sampler(split)
    sample = reader.read_sample()
    assert sample.devices[0] == ("gpu0", 5 * GIB, 2 * GIB, 3 * GIB)
    assert sample.processes == [("gpu0", 7, 2 * GIB), ("gpu1", 8, GIB)] and sample.faults == {}
    # One that vanishes is lost; what takes its place is another device, which nobody asked for.
    split.instances = [Card("MIG-3", "slice", 5 * GIB, 0), None, other]
    sample = reader.read_sample()
    assert sample.faults == {"gpu0": "lost"} and [one for one, *_ in sample.devices] == ["gpu1", "cpu"]


def test_a_card_that_is_split_up_meanwhile_is_lost_as_a_whole() -> None:
    whole = Card("GPU-1", instances=[])
    reader, _ = sampler(whole)
    assert reader.read_sample().faults == {}
    whole.instances = [Card("MIG-1")]
    sample = reader.read_sample()
    assert sample.faults["gpu0"].startswith("lost") and [one for one, *_ in sample.devices] == ["cpu"]
    whole.instances = []
    assert reader.read_sample().faults == {}


@pytest.mark.parametrize("call", [MEMORY, PROCESSES[0], "*"])
def test_a_lost_card_is_its_own_fault_and_comes_back(call: str) -> None:
    lost, fine = Card("GPU-1"), Card("GPU-2")
    reader, _ = sampler(lost, fine)
    lost.errors[call] = LOST
    sample = reader.read_sample()
    assert sample.faults == {"gpu0": "lost"}
    assert "gpu1" in [device_id for device_id, *_ in sample.devices]
    lost.errors.clear()
    assert reader.read_sample().faults == {}


def test_an_error_of_the_older_memory_call_is_a_fault() -> None:
    card = Card("GPU-1")
    reader, _ = sampler(card)
    card.errors |= {MEMORY: FUNCTION_NOT_FOUND, OLD_MEMORY: UNKNOWN}
    assert reader.read_sample().faults == {"gpu0": "Unknown Error"}


def test_an_instance_that_vanished_is_lost() -> None:
    reader, driver = sampler(Card("GPU-1"))
    driver.state.cards.clear()
    assert reader.read_sample().faults == {"gpu0": "lost"}


def test_a_driver_that_was_restarted_is_opened_again() -> None:
    reader, driver = sampler(Card("GPU-1"))
    reader.read_sample()
    driver.library.restart()
    assert reader.read_sample().faults == {"gpu0": "Uninitialized"}
    assert reader.read_sample().faults == {}


def test_simulated_devices_have_no_reading() -> None:
    there = find_devices(parse_gpus("sim:1GiB"), {}, nvml=None)
    assert [device_id for device_id, *_ in DeviceSampler(there.devices, None).read_sample().devices] == [
        "cpu"
    ]


def test_the_processor_is_named_as_people_know_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Fast Chip 9\n")
    assert processor_name(cpuinfo) == "Fast Chip 9"


def test_without_a_model_name_the_architecture_stands_for_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\n")
    assert processor_name(cpuinfo) == processor_name(tmp_path / "missing") != ""


@pytest.mark.parametrize(("init_error", "version"), [(None, "570.1"), (LIBRARY_NOT_FOUND, None)])
def test_the_driver_tells_its_version(init_error: int | None, version: str | None) -> None:
    driver = FakeDriver(A, init_error=init_error)
    assert driver_version(driver.nvml) == version
    assert driver.library.starts == 0
