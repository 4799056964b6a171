"""Effect: one real server that the tests of this folder share, and one at a time for those that break it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runner.testing import Server as Process
from tests.faults.server_fixture import LiveServer
from tests.runner.coordinator.server_client import connect_to

HANDLERS = Path(__file__).with_name("serve_handlers.py")


@pytest.fixture(scope="session")
def server() -> Iterator[LiveServer]:
    """Two simulated devices and the cpu; its results are at most 1 MiB."""
    limits = {"output_bytes": 1 << 20}
    with Process([HANDLERS], gpus="sim:2x24GiB", limits=limits, grace_s="0s") as process:
        api = connect_to(process)
        yield api
        api.http.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., LiveServer]]:
    """Starts a server of the test's own; arguments as `runner.testing.Server`."""
    with ExitStack() as stack:

        def start(**options: object) -> LiveServer:
            handlers = options.pop("handlers", [HANDLERS])
            options = {"grace_s": "0s", **options}
            process = stack.enter_context(Process(handlers, **options))  # type: ignore[arg-type]
            api = connect_to(process)
            stack.callback(api.http.close)
            return api

        yield start


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """The file that handlers wait for; it is there at the latest when the test is over."""
    path = tmp_path / "gate"
    yield path
    path.touch()
