"""Effect: on which GPU the device tests run: the real one with `make test-gpu`, else one that is made up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.device.device_under_test import DeviceUnderTest, find_obstacle
from tests.fakes import fake_nvml
from tests.fakes.fake_gpus import Card, FakeGpus

#: Set to 1 by `make test-gpu`.
REAL = "DEVICE_TESTS_REAL"


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus", Card("GPU-fake-0"))


@pytest.fixture
def device_under_test(gpus: FakeGpus) -> Iterator[DeviceUnderTest]:
    if os.environ.get(REAL) == "1":
        why = find_obstacle()
        if why is not None:
            pytest.skip(why)
        import pynvml

        device_under_test = DeviceUnderTest(pynvml, {}, is_real=True)
    else:
        device_under_test = DeviceUnderTest(fake_nvml.load(gpus.folder), gpus.environ(), is_real=False)
    yield device_under_test
    device_under_test.close()
