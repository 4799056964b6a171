"""Effect: the wall clock is set by a day under a server that runs."""

from __future__ import annotations

import time

import pytest

from tests.faults.server_fixture import LiveServer, ServerFixture, until, wait_until_stable

pytestmark = pytest.mark.timed

DAY_S = 86_400
#: Put before everything else on the path: every process of the server_fixture reads the time through it.
JUMPER = """
import os, time
_time = time.time
def jumped():
    with open(os.environ["CLOCK_OFFSET"]) as file:
        return _time() + float(file.read())
time.time = jumped
"""


def start(server_fixture: ServerFixture) -> LiveServer:
    folder = server_fixture.folder / "jumper"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(JUMPER)
    jump(server_fixture, 0)
    path = f"{folder}:{server_fixture.tree}"
    return server_fixture.start(
        env={"PYTHONPATH": path, "CLOCK_OFFSET": str(server_fixture.folder / "offset")}
    )


def jump(server_fixture: ServerFixture, seconds: float) -> None:
    fresh = server_fixture.folder / "offset.new"
    fresh.write_text(str(seconds))
    fresh.replace(server_fixture.folder / "offset")


def within(server: LiveServer, handler: str, least_s: float, most_s: float, **options: object) -> str:
    """The state in which such a job ends, and that it took about as long as it should."""
    began = time.monotonic()
    job = server.wait_for_end(server.submit(handler, options.pop("data", None), **options))
    took_s = time.monotonic() - began
    assert least_s <= took_s <= most_s, (handler, took_s)
    return str(job["state"])


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [DAY_S, -DAY_S], ids=["forward", "back"])
def test_a_jump_of_the_clock_ends_nothing_early_and_delays_nothing(
    server_fixture: ServerFixture, seconds: int
) -> None:
    server = start(server_fixture)
    server.http.put("/v1/queues/still", json={"paused": True})
    later = server.submit("echo", delay_s=3_600)
    waiting = server.submit("echo", queue="still", queue_timeout_s=3_600)
    gate = server_fixture.folder / "gate"
    running = server.submit("steady", {"gate": str(gate)}, timeout_s=3_600)
    until(lambda: server.job(running)["progress"], "it runs")
    executors = _executors(server)
    jump(server_fixture, seconds)
    states = wait_until_stable(
        lambda: [server.job(each)["state"] for each in (later, waiting, running)], "all is quiet"
    )
    assert states == ["queued", "queued", "running"]
    assert server.job(later)["reason"] == "scheduled"
    assert _executors(server) == executors, "what is loaded stays loaded"
    # What is due soon comes soon: a delay, a wait that is too long, a retry that the handler asks for.
    assert within(server, "echo", 0.3, 3, delay_s=0.3) == "succeeded"
    assert within(server, "echo", 0.3, 3, queue="still", queue_timeout_s=0.3) == "failed"
    assert within(server, "again_soon", 0.3, 4, retries=1) == "succeeded"
    assert within(server, "loop_in_c", 0.5, 4, timeout_s=0.5) == "failed"
    gate.touch()
    job = server.wait_for_end(running)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]


def _executors(server: LiveServer) -> list[int]:
    (cpu,) = server.http.get("/v1/devices").json()["data"]
    return [each["id"] for each in cpu["executors"]]
