"""Effect: a ticket outlives the front and the server that gave it, and ends with the token."""

from __future__ import annotations

import os
import signal

import httpx2
import pytest

from tests.faults.server_fixture import LiveServer, ServerFixture, until


def start(server_fixture: ServerFixture, token: str, *, port: int = 0) -> LiveServer:
    server = server_fixture.start("--fronts", "2", env={"RUNNER_TOKEN": token}, port=port)
    server.http.headers["Authorization"] = f"Bearer {token}"
    return server


def status(url: str) -> int:
    """What a client that has no token is answered; 0 where its connection broke."""
    try:
        return httpx2.get(url, trust_env=False, timeout=5).status_code
    except httpx2.TransportError:
        return 0


@pytest.mark.slow
def test_a_ticket_outlives_fronts_and_servers_but_not_the_token(server_fixture: ServerFixture) -> None:
    server = start(server_fixture, "first")
    job_id = server.submit("echo", {"a": 1})
    server.wait_for_end(job_id)
    url = server.url + server.http.post("/v1/tickets", json={"job_id": job_id}).json()["url"]
    server.http.close()
    for pid in server_fixture.pids_of_role("front"):
        os.kill(pid, signal.SIGKILL)
    until(lambda: status(url) == 200, "new fronts take it", within_s=10)
    server_fixture.kill(server)
    server = start(server_fixture, "first", port=server.port)
    assert status(url) == 200
    server_fixture.kill(server)
    server = start(server_fixture, "second", port=server.port)
    assert status(url) == 401
