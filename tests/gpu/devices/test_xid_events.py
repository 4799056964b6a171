from __future__ import annotations

import ctypes

import pytest

from gpu.devices.device import parse_gpus
from gpu.devices.discovery import DeviceSampler, find_devices
from gpu.devices.xid_events import EVENTS_PER_POLL_MAX, _address
from tests.fakes.fake_gpus import GIB, LOST, Card
from tests.fakes.fake_nvml import FUNCTION_NOT_FOUND, NO_PERMISSION, NOT_SUPPORTED, UNKNOWN, FakeDriver

REGISTER, MEMORY = "nvmlDeviceRegisterEvents", "nvmlDeviceGetMemoryInfo_v2"


def reader(*cards: Card) -> tuple[DeviceSampler, FakeDriver]:
    """A sampler that has had its first reading, with which it registers."""
    driver = FakeDriver(*cards)
    sampler = DeviceSampler(find_devices(parse_gpus("all"), {}, nvml=driver.nvml).devices, driver.nvml)
    assert sampler.read_sample().xids == []
    return sampler, driver


def test_an_error_is_told_once_with_the_device_and_the_code() -> None:
    one, two = Card("GPU-1"), Card("GPU-2")
    sampler, driver = reader(one, two)
    driver.report(two.uuid, 79)
    driver.report(one.uuid, 31)
    assert sampler.read_sample().xids == [("gpu1", 79), ("gpu0", 31)]
    assert sampler.read_sample().xids == []
    assert driver.library.registered() == ["GPU-1", "GPU-2"]
    assert driver.library.longest_wait_ms == 0, "a look must not wait"


def test_a_flood_of_errors_does_not_hold_up_the_readings() -> None:
    card = Card("GPU-1")
    sampler, driver = reader(card)
    driver.report(card.uuid, *[13] * (EVENTS_PER_POLL_MAX + 1))
    assert [len(sampler.read_sample().xids), len(sampler.read_sample().xids)] == [EVENTS_PER_POLL_MAX, 1]


def test_an_error_of_an_instance_is_its_own_and_one_of_the_card_is_of_all() -> None:
    first, second = Card("MIG-1", total=5 * GIB), Card("MIG-2", total=5 * GIB)
    whole = Card("GPU-x", instances=[None, first, second])
    sampler, driver = reader(whole)
    assert driver.library.registered() == ["GPU-x"]
    driver.report(second.uuid, 94)
    driver.report(whole.uuid, 48)
    assert sampler.read_sample().xids == [("gpu1", 94), ("gpu0", 48), ("gpu1", 48)]


@pytest.mark.parametrize(
    "refusal",
    [NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND],
)
def test_where_the_driver_has_no_events_there_are_none(refusal: int) -> None:
    mute, fine = Card("GPU-1", errors={REGISTER: refusal}), Card("GPU-2")
    sampler, driver = reader(mute, fine)
    mute.errors.clear()
    driver.report(fine.uuid, 13)
    assert sampler.read_sample().xids == [("gpu1", 13)]
    assert driver.library.registered() == ["GPU-2"], "it is not asked again and again"


def test_a_refusal_for_the_moment_is_tried_again() -> None:
    card = Card("GPU-1", errors={REGISTER: UNKNOWN})
    sampler, driver = reader(card)
    card.errors.clear()
    sampler.read_sample()
    driver.report(card.uuid, 13)
    assert sampler.read_sample().xids == [("gpu0", 13)]


def test_a_card_that_has_fallen_off_the_bus_is_known_although_it_tells_no_name() -> None:
    lost, fine = Card("GPU-1"), Card("GPU-2")
    sampler, driver = reader(lost, fine)
    lost.errors |= {"nvmlDeviceGetUUID": LOST, MEMORY: LOST}
    driver.report(lost.uuid, 79)
    sample = sampler.read_sample()
    assert (sample.xids, sample.faults) == ([("gpu0", 79)], {"gpu0": "lost"})


def test_after_a_card_was_lost_all_register_anew() -> None:
    lost, fine = Card("GPU-1"), Card("GPU-2")
    sampler, driver = reader(lost, fine)
    lost.errors[MEMORY] = LOST
    sampler.read_sample()
    lost.errors.clear()
    sampler.read_sample()
    assert sorted(driver.library.registered()) == ["GPU-1", "GPU-2"]
    driver.report(lost.uuid, 13)
    assert sampler.read_sample().xids == [("gpu0", 13)]


def test_a_queue_that_fails_is_opened_anew() -> None:
    card = Card("GPU-1")
    sampler, driver = reader(card)
    driver.state.errors["nvmlEventSetWait_v2"] = UNKNOWN
    assert sampler.read_sample().xids == []
    driver.state.errors.clear()
    driver.report(card.uuid, 13)
    assert sampler.read_sample().xids == [("gpu0", 13)]


def test_a_restarted_driver_is_asked_anew() -> None:
    card = Card("GPU-1")
    sampler, driver = reader(card)
    driver.library.restart()
    sampler.read_sample()
    sampler.read_sample()
    driver.report(card.uuid, 13)
    assert sampler.read_sample().xids == [("gpu0", 13)]


def test_handles_of_the_library_are_compared_by_where_they_point() -> None:
    value = ctypes.c_int(7)
    one, other = ctypes.pointer(value), ctypes.pointer(value)
    assert one is not other and _address(one) == _address(other)
