from __future__ import annotations

import ctypes

import pytest

from gpu.devices.device import parse_gpus
from gpu.devices.discovery import DeviceSampler, find_devices
from gpu.devices.xid_events import EVENTS_PER_POLL_MAX, _address
from tests.gpu.devices.scripted_nvml import GIB, Card, Event, FakeNvml


def reader(*cards: Card) -> tuple[DeviceSampler, FakeNvml]:
    """A sampler that has had its first reading, with which it registers."""
    nvml = FakeNvml(*cards)
    sampler = DeviceSampler(find_devices(parse_gpus("all"), {}, nvml=nvml).devices, nvml)
    assert sampler.read_sample().xids == []
    return sampler, nvml


def test_an_error_is_told_once_with_the_device_and_the_code() -> None:
    one, two = Card("GPU-1"), Card("GPU-2")
    sampler, nvml = reader(one, two)
    nvml.events += [Event(two, 79), Event(one, 31)]
    assert sampler.read_sample().xids == [("gpu1", 79), ("gpu0", 31)]
    assert sampler.read_sample().xids == []
    assert nvml.registered == ["GPU-1", "GPU-2"]


def test_a_flood_of_errors_does_not_hold_up_the_readings() -> None:
    card = Card("GPU-1")
    sampler, nvml = reader(card)
    nvml.events += [Event(card, 13)] * (EVENTS_PER_POLL_MAX + 1)
    assert [len(sampler.read_sample().xids), len(sampler.read_sample().xids)] == [EVENTS_PER_POLL_MAX, 1]


def test_an_error_of_an_instance_is_its_own_and_one_of_the_card_is_of_all() -> None:
    first, second = Card("MIG-1", total=5 * GIB), Card("MIG-2", total=5 * GIB)
    whole = Card("GPU-x", instances=[None, first, second])
    sampler, nvml = reader(whole)
    assert nvml.registered == ["GPU-x"]
    nvml.events += [Event(whole, 94, gpuInstanceId=2), Event(whole, 48)]
    assert sampler.read_sample().xids == [("gpu1", 94), ("gpu0", 48), ("gpu1", 48)]


@pytest.mark.parametrize(
    "refusal",
    [
        FakeNvml.NVML_ERROR_NOT_SUPPORTED,
        FakeNvml.NVML_ERROR_NO_PERMISSION,
        FakeNvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    ],
)
def test_where_the_driver_has_no_events_there_are_none(refusal: int) -> None:
    mute, fine = Card("GPU-1", errors={"register": refusal}), Card("GPU-2")
    sampler, nvml = reader(mute, fine)
    mute.errors.clear()
    nvml.events.append(Event(fine, 13))
    assert sampler.read_sample().xids == [("gpu1", 13)]
    assert nvml.registered == ["GPU-2"], "it is not asked again and again"


def test_a_refusal_for_the_moment_is_tried_again() -> None:
    card = Card("GPU-1", errors={"register": 99})
    sampler, nvml = reader(card)
    card.errors.clear()
    sampler.read_sample()
    nvml.events.append(Event(card, 13))
    assert sampler.read_sample().xids == [("gpu0", 13)]


def test_a_card_that_has_fallen_off_the_bus_is_known_although_it_tells_no_name() -> None:
    lost, fine = Card("GPU-1"), Card("GPU-2")
    sampler, nvml = reader(lost, fine)
    lost.errors |= {"uuid": FakeNvml.NVML_ERROR_GPU_IS_LOST, "memory2": FakeNvml.NVML_ERROR_GPU_IS_LOST}
    nvml.events.append(Event(lost, 79))
    sample = sampler.read_sample()
    assert (sample.xids, sample.faults) == ([("gpu0", 79)], {"gpu0": "lost"})


def test_after_a_card_was_lost_all_register_anew() -> None:
    lost, fine = Card("GPU-1"), Card("GPU-2")
    sampler, nvml = reader(lost, fine)
    lost.errors["memory2"] = FakeNvml.NVML_ERROR_GPU_IS_LOST
    sampler.read_sample()
    lost.errors.clear()
    sampler.read_sample()
    assert sorted(nvml.registered) == ["GPU-1", "GPU-2"]
    nvml.events.append(Event(lost, 13))
    assert sampler.read_sample().xids == [("gpu0", 13)]


def test_a_queue_that_fails_is_opened_anew() -> None:
    card = Card("GPU-1")
    sampler, nvml = reader(card)
    nvml.event_error = 99
    assert sampler.read_sample().xids == []
    nvml.event_error = None
    nvml.events.append(Event(card, 13))
    assert sampler.read_sample().xids == [("gpu0", 13)]


def test_a_restarted_driver_is_asked_anew() -> None:
    card = Card("GPU-1")
    sampler, nvml = reader(card)
    nvml.inits = 0
    sampler.read_sample()
    sampler.read_sample()
    nvml.events.append(Event(card, 13))
    assert sampler.read_sample().xids == [("gpu0", 13)]


def test_handles_of_the_library_are_compared_by_where_they_point() -> None:
    value = ctypes.c_int(7)
    one, other = ctypes.pointer(value), ctypes.pointer(value)
    assert one is not other and _address(one) == _address(other)
