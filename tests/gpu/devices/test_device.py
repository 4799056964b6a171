from __future__ import annotations

import json

import pytest

from gpu.devices import visibility
from gpu.devices.device import MIB, Device, GpuRequest, cpu, nvidia, parse_gpus, sim

GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("all", GpuRequest("all")),
        (" none ", GpuRequest("none")),
        ("0", GpuRequest("named", names=(0,))),
        ("0,1", GpuRequest("named", names=(0, 1))),
        ("GPU-3d1f, 2", GpuRequest("named", names=("GPU-3d1f", 2))),
        ("MIG-GPU-3d1f/1/0", GpuRequest("named", names=("MIG-GPU-3d1f/1/0",))),
        ("sim:24GiB", GpuRequest("sim", sims=(24 * GIB,))),
        ("sim:2x24GiB", GpuRequest("sim", sims=(24 * GIB, 24 * GIB))),
        ("sim:2x1.5GB,512MiB", GpuRequest("sim", sims=(1_500_000_000, 1_500_000_000, 512 * MIB))),
        ("sim:1048576", GpuRequest("sim", sims=(MIB,))),
    ],
)
def test_request_is_understood(text: str, request_: GpuRequest) -> None:
    assert parse_gpus(text) == request_


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "''"),
        ("1,", "''"),
        ("-1", "'-1'"),
        ("0,0", "twice"),
        ("cuda:0", "'cuda:0'"),
        ("GPU-", "'GPU-'"),
        ("sim:", "''"),
        ("sim:2", "'2'"),
        ("sim:x24GiB", "'x24GiB'"),
        ("sim:0x24GiB", "'0x24GiB'"),
        ("sim:65x24GiB", "'65x24GiB'"),
        ("sim:60x1GiB,5x1GiB", "'5x1GiB'"),
        ("sim:999999999999x1GiB", "'999999999999x1GiB'"),
        ("sim:two", "'two'"),
    ],
)
def test_wrong_request_says_what_is_wrong_and_what_is_accepted(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match="accepted are: all, none") as caught:
        parse_gpus(text)
    assert wrong in str(caught.value)


@pytest.mark.parametrize(
    ("device", "headroom"),
    [
        (nvidia(0, "GPU-1", "small", 4 * GIB), 256 * MIB),
        (nvidia(0, "GPU-1", "large", 80 * GIB), 80 * GIB // 50),
        (nvidia(0, "MIG-1", "tiny", 100 * MIB), 100 * MIB),
        (sim(0, 24 * GIB), 0),
        (cpu("m", "c", 16 * GIB, 8), 16 * GIB // 50),
        (cpu("m", "c", 512 * MIB, 8), 128 * MIB),
    ],
)
def test_headroom_is_never_promised(device: Device, headroom: int) -> None:
    assert device.headroom_bytes == headroom
    assert device.cap_bytes == device.total_bytes - headroom


def test_executors_at_once_follow_kind_cores_and_operator() -> None:
    assert nvidia(0, "GPU-1", "c", GIB).max_executors == sim(0, GIB).max_executors == 8
    assert [cpu("m", "c", GIB, cores).max_executors for cores in (1, 2, 16)] == [2, 2, 16]
    assert nvidia(0, "GPU-1", "c", GIB).max_resident == sim(0, GIB).max_resident == 64
    assert [cpu("m", "c", GIB, cores).max_resident for cores in (1, 2, 16)] == [16, 16, 64]
    assert sim(0, GIB, 100).max_resident == cpu("m", "c", GIB, 2, 100).max_resident == 100
    assert (
        nvidia(0, "G", "c", GIB, None, None, 3).max_resident == cpu("m", "c", GIB, 9, 5, 3).max_resident == 3
    )
    assert [each.max_executors for each in (nvidia(0, "G", "c", GIB, 3), cpu("m", "c", GIB, 9, 3))] == [3, 3]


def test_device_travels_as_plain_fields() -> None:
    device = nvidia(1, "GPU-1", "card", 24 * GIB)
    fields = json.loads(json.dumps(device.to_dict()))
    assert Device.from_dict(fields | {"later": 1}) == device
    elsewhere = Device.from_dict(fields | {"id": "rack-7.gpu1"})
    assert elsewhere.to_dict() == fields | {"id": "rack-7.gpu1"}


def test_a_device_without_an_id_of_a_device_is_refused() -> None:
    fields = nvidia(1, "GPU-1", "card", 24 * GIB).to_dict()
    with pytest.raises(ValueError, match="'card 1' is not a device id"):
        Device.from_dict(fields | {"id": "card 1"})


def test_executor_sees_its_gpus_by_uuid_and_nothing_else() -> None:
    cards = [nvidia(1, "GPU-b", "card", GIB), nvidia(0, "GPU-a", "card", GIB)]
    assert visibility.visibility_environment(cards) == {
        "CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    assert visibility.torch_device(cards) == "cuda:0"


@pytest.mark.parametrize("device", [sim(0, GIB), cpu("m", "c", GIB, 1)])
def test_executor_without_a_gpu_sees_none(device: Device) -> None:
    assert visibility.visibility_environment([device])["CUDA_VISIBLE_DEVICES"] == ""
    assert visibility.torch_device([device]) == "cpu"
