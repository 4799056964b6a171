"""Effect: the server_fixture that every fault test lives in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.server_fixture import ServerFixture


@pytest.fixture
def server_fixture(tmp_path: Path) -> Iterator[ServerFixture]:
    server_fixture = ServerFixture(tmp_path)
    yield server_fixture
    server_fixture.close()
