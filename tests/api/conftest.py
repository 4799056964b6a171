"""Effect: one front process for all tests of a file that do not end it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from tests.api.fake_coordinator import RunningFront, running_front


@pytest.fixture(scope="module")
def front() -> Iterator[RunningFront]:
    with running_front() as started:
        yield started


@pytest.fixture
def http(front: RunningFront) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=front.url, timeout=10) as client:
        yield client
