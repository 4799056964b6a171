"""The running server: an operator's options are in force, and gone with the config that gave them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from runner.testing import ServedClient, Server
from tests.runner.served_handlers import boom, echo

CONFIG = """
[handlers.echo]
priority = 90
vram = "1GiB"
keep_alive = 0

[handlers.boom]
retries = 1
backoff = "10ms"

[handlers.absent]
retries = 1
"""


def options(client: ServedClient, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in client.handlers() if each["name"] == name)["options"]
    return found


@pytest.mark.slow
def test_options_of_the_config_are_in_force_and_remembered_nowhere(tmp_path: Path) -> None:
    server = Server(handlers=[echo, boom], data_dir=tmp_path)
    config = tmp_path / "runner.toml"
    config.write_text(CONFIG)
    with server, server.client() as client:
        assert client.submit(echo, 1).wait(20)["priority"] == 90
        assert client.submit(boom, 1).wait(20)["attempt"] == 2
        shown = options(client, "echo")
        assert (shown["priority"], shown["vram_bytes"], shown["keep_alive_s"]) == (90, 1 << 30, 0)
        deadline = time.monotonic() + 10
        while "absent" not in server.log:
            assert time.monotonic() < deadline, server.log
    assert "there is no handler of this name" in server.log
    config.unlink()
    with server, server.client() as client:
        assert client.submit(echo, 1).wait(20)["priority"] == 50
        assert options(client, "echo")["vram_bytes"] is None
