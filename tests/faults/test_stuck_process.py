"""Effect: an executor that SIGKILL does not end, as one that hangs in a driver; everything else goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.mutate import mutated, unless, value
from tests.faults.server_fixture import Document, LiveServer, ServerFixture, until

#: While the file is there, no signal to an executor has any effect.
DEATHLESS = 'os.path.exists(os.environ["DEATHLESS"])'
CHANGES = [
    unless("executor-group-killed", DEATHLESS),
    unless("process-killed", DEATHLESS),
    # It is written off after 5 s; a test has no such time.
    value("stuck-limit", "0.5"),
    value("stuck-look", "0.1"),
]


@pytest.fixture
def server_fixture(tmp_path: Path) -> Iterator[ServerFixture]:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, CHANGES))
    (tmp_path / "deathless").touch()
    yield server_fixture
    server_fixture.close()


def start(server_fixture: ServerFixture, *flags: str) -> LiveServer:
    return server_fixture.start(*flags, env={"DEATHLESS": str(server_fixture.folder / "deathless")})


def device(server: LiveServer, name: str) -> Document:
    found = server.http.get("/v1/devices").json()["data"]
    return dict(next(each for each in found if each["id"] == name))


def stuck(server: LiveServer, handler: str) -> str:
    """A job that was timed out and whose executor was written off; gives its device."""
    job_id = server.submit(handler, timeout_s=0.2)
    (name,) = until(lambda: server.job(job_id)["devices"], "it runs")
    until(lambda: device(server, name)["health"] != "ok", "it is told of")
    job = server.wait_for_end(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "timeout"), job
    return str(name)


@pytest.mark.slow
def test_a_gpu_whose_process_does_not_die_gets_no_more_work_and_the_others_do(
    server_fixture: ServerFixture,
) -> None:
    server = start(server_fixture, "--gpus", "sim:2x24GiB")
    assert {server.wait_for_end(server.submit("where"))["output"][0] for _ in range(2)} <= {"sim0", "sim1"}
    sick = stuck(server, "frozen_on_gpu")
    shown = device(server, sick)
    assert shown["health"].startswith("stuck_process: ") and "no new work" in shown["health"]
    assert shown["reserved_bytes"] == 4 << 30, "what it may hold is nobody else's"
    ready = server.http.get("/readyz").json()
    assert (ready["status"], ready["parts"][f"device {sick}"]["state"]) == ("degraded", "degraded")
    other = {"sim0": "sim1", "sim1": "sim0"}[sick]
    for job_id in server.submit_many("where", [{}] * 6):
        assert server.wait_for_end(job_id)["output"] == [other]
    # It dies after all: the device is as good as before.
    (server_fixture.folder / "deathless").unlink()
    until(lambda: device(server, sick)["health"] == "ok", "the device is back")
    assert device(server, sick)["reserved_bytes"] == 0
    both = [server.submit("steady_on_gpu", {"gate": str(server_fixture.folder / "gate")}) for _ in range(2)]
    until(lambda: all(server.job(job_id)["progress"] for job_id in both), "both devices run jobs")
    (server_fixture.folder / "gate").touch()
    assert {server.wait_for_end(job_id)["output"][0] for job_id in both} == {"sim0", "sim1"}


@pytest.mark.slow
def test_on_the_cpu_only_its_place_is_lost_and_the_server_can_be_stopped(
    server_fixture: ServerFixture,
) -> None:
    server = start(server_fixture)
    assert stuck(server, "frozen") == "cpu"
    assert "its place is lost" in device(server, "cpu")["health"]
    gate = server_fixture.folder / "gate"
    jobs = [server.submit("steady", {"gate": str(gate)}) for _ in range(2)]
    until(lambda: server.counts()["running"] == 1, "the other place is used")
    assert server.job(jobs[1])["reason"] == "waiting_for_device"
    gate.touch()
    assert {server.wait_for_end(job_id)["state"] for job_id in jobs} == {"succeeded"}
    server.process.terminate()
    assert server.exit_code(within_s=5) == 0
