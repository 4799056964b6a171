"""Effect: the house that every fault test lives in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.server_fixture import ServerFixture


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ServerFixture]:
    house = ServerFixture(tmp_path)
    yield house
    house.close()
