"""Effect: one front process for all tests of a file that do not end it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from tests.api.fake_coordinator import Running, running


@pytest.fixture(scope="module")
def front() -> Iterator[Running]:
    with running() as started:
        yield started


@pytest.fixture
def http(front: Running) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=front.url, timeout=10) as client:
        yield client
