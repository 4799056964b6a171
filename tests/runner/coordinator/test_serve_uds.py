"""A running server over its Unix socket."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runner import AsyncClient, Client
from runner.errors import NoServer, Unauthorized
from runner.testing import serving
from tests.runner.served_handlers import echo


def test_clients_and_commands_use_the_socket_and_it_is_gone_after_the_end(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    url = f"unix://{path}"

    async def run_async() -> object:
        async with AsyncClient(url, "hush") as client:
            return await client.run(echo, 2)

    with serving([echo], uds=str(path), token="hush"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with Client(url, "hush") as client:
            assert client.run(echo, 1) == 1
            assert [event.type for event in client.submit(echo, 1).events()][-1] == "done"
        assert asyncio.run(run_async()) == 2
        with Client(url, "guess") as stranger, pytest.raises(Unauthorized):
            stranger.queues()
        command = [sys.executable, "-P", "-m", "runner", "run", "echo", "-"]
        environ = os.environ | {"RUNNER_URL": url, "RUNNER_TOKEN": "hush"}
        said = subprocess.run(command, input=b"3", capture_output=True, env=environ, timeout=60)
        assert said.stdout.strip() == b"3", said.stderr
    assert not path.exists()
    with Client(url) as late, pytest.raises(NoServer, match="no server answers at unix://"):
        late.queues()
