"""Effect: GPUs that fall ill, are lost or report errors: their work moves, and in the end they come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.fakes.fake_gpus import EVENT_XID, Card, FakeGpus
from tests.fakes.gpu_server import FileGate, device_of, devices, start_on_gpus
from tests.faults.mutate import Change, always, mutated, never, removed
from tests.faults.server_fixture import Document, LiveServer, ServerFixture, until, wait_until_stable

pytestmark = pytest.mark.slow

A, B = "GPU-a", "GPU-b"
CARDS = {"gpu0": A, "gpu1": B}
ILLEGAL = "CUDA error: an illegal memory access was encountered"


@pytest.fixture
def two(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus", Card(A), Card(B))


def condition(server: LiveServer, device_id: str) -> Document:
    return dict(devices(server)[device_id]["condition"])


def becomes(server: LiveServer, device_id: str, state: str, *, within_s: float = 5.0) -> Document:
    """The device's condition as soon as it has this state."""
    return until(
        lambda: (found := condition(server, device_id))["state"] == state and found,
        f"{device_id} is {state}",
        within_s=within_s,
    )


def told(server: LiveServer, device_id: str) -> list[str]:
    """The kinds of what happened to a device."""
    return [event["type"] for event in devices(server)[device_id]["events"]]


def moved(server: LiveServer, job_id: str, code: str) -> Document:
    """The job, whose first attempt was cut off with this code, running again."""
    until(lambda: (job := server.job(job_id))["attempt"] == 2 and job["progress"], "it runs again")
    first, second = server.attempts(job_id)
    assert first["error"]["code"] == code, first
    return {"from": first["devices"], "to": second["devices"], "why": first["error"]["message"]}


def finished(server: LiveServer, job_id: str) -> None:
    job = server.wait_for_end(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job


# What is shown, as functions of a server_fixture: with a guard taken out they must fail.


def lost_and_found(server_fixture: ServerFixture, two: FakeGpus) -> None:
    """A lost GPU is told at once, its jobs move, and it comes back."""
    server = start_on_gpus(server_fixture, two)
    gate = FileGate(server, server_fixture.folder)
    job_id = gate.submit_running(retries=0)
    sick = device_of(server, job_id)
    began = time.monotonic()
    two.lose(CARDS[sick])
    lost = becomes(server, sick, "lost")
    move = moved(server, job_id, "device_lost")
    assert time.monotonic() - began < 5
    assert move["from"] == [sick] and move["to"] != [sick]
    assert "lost" in lost["message"] and "lost" in move["why"]
    ready = server.http.get("/readyz").json()
    assert ready["status"] == "degraded", ready
    assert f'runner_device_up{{device="{sick}"}} 0.0' in server.http.get("/metrics").text
    assert [gate.submit_running() for _ in range(2)] and not devices(server)[sick]["executors"]
    assert "worker_lost" not in told(server, sick), "nothing is started there again and again"
    two.restore(CARDS[sick])
    becomes(server, sick, "ok", within_s=10)
    gate.open()
    finished(server, job_id)
    assert server.http.get("/readyz").json()["status"] == "ok"


def needs_reset(server_fixture: ServerFixture, two: FakeGpus) -> None:
    """A GPU that needs a reset comes back by the operator's word and by nothing else."""
    server = start_on_gpus(server_fixture, two)
    two.event(A, EVENT_XID, 95)
    becomes(server, "gpu0", "quarantined")
    assert "it needs a reset" in devices(server)["gpu0"]["health"]
    job = server.wait_for_end(server.submit("take", {"bytes": ["1GiB"]}))
    assert job["output"]["device"] == B
    # Readings are good all the while, and a check would pass.
    assert (
        wait_until_stable(lambda: condition(server, "gpu0")["state"], "it stays so", for_s=2.5)
        == "quarantined"
    )
    assert server.http.post("/v1/devices/gpu0/resume").status_code == 200
    becomes(server, "gpu0", "ok")


def contained(server_fixture: ServerFixture, two: FakeGpus) -> None:
    """After a contained memory error no result is trusted."""
    server = start_on_gpus(server_fixture, two)
    gate = FileGate(server, server_fixture.folder)
    job_id = gate.submit_running(retries=0)
    sick = device_of(server, job_id)
    two.event(CARDS[sick], EVENT_XID, 94)
    move = moved(server, job_id, "interrupted")
    assert "Xid 94" in move["why"] and condition(server, sick)["state"] in ("suspect", "ok")
    gate.open()
    finished(server, job_id)


def test_a_lost_gpu_is_told_at_once_its_jobs_move_and_it_comes_back(
    server_fixture: ServerFixture, two: FakeGpus
) -> None:
    lost_and_found(server_fixture, two)


@pytest.mark.parametrize(("code", "state"), [(48, "quarantined"), (79, "lost")])
def test_a_card_that_reports_that_it_is_broken_is_left(
    server_fixture: ServerFixture, two: FakeGpus, code: int, state: str
) -> None:
    server = start_on_gpus(server_fixture, two)
    gate = FileGate(server, server_fixture.folder)
    job_id = gate.submit_running(retries=0)
    sick = device_of(server, job_id)
    if code == 79:
        two.lose(CARDS[sick])
    two.event(CARDS[sick], EVENT_XID, code)
    found = becomes(server, sick, state)
    assert f"Xid {code}" in found["message"] or code == 79
    assert moved(server, job_id, "device_lost")["to"] != [sick]
    assert "xid" in told(server, sick)
    gate.open()
    finished(server, job_id)


def test_who_needs_a_reset_comes_back_by_the_operators_word(
    server_fixture: ServerFixture, two: FakeGpus
) -> None:
    needs_reset(server_fixture, two)


def test_after_a_contained_memory_error_no_result_is_trusted(
    server_fixture: ServerFixture, two: FakeGpus
) -> None:
    contained(server_fixture, two)


def test_an_unknown_error_drains_and_what_runs_ends_first(
    server_fixture: ServerFixture, two: FakeGpus
) -> None:
    server = start_on_gpus(server_fixture, two)
    gate = FileGate(server, server_fixture.folder)
    job_id = gate.submit_running(retries=0)
    sick = device_of(server, job_id)
    two.event(CARDS[sick], EVENT_XID, 9999)
    until(lambda: any("no known kind" in each["message"] for each in devices(server)[sick]["events"]), "told")
    becomes(server, sick, "ok", within_s=10)
    gate.open()
    job = server.wait_for_end(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)


@pytest.mark.parametrize("code", [13, 45])
def test_errors_of_programs_are_left_to_their_programs(
    server_fixture: ServerFixture, two: FakeGpus, code: int
) -> None:
    server = start_on_gpus(server_fixture, two)
    gate = FileGate(server, server_fixture.folder)
    job_id = gate.submit_running(retries=0)
    sick = device_of(server, job_id)
    two.event(CARDS[sick], EVENT_XID, code)
    # What comes behind it has been acted upon, so it has.
    two.event(CARDS[sick], EVENT_XID, 94)
    moved(server, job_id, "interrupted")
    kinds = [each["message"] for each in devices(server)[sick]["events"] if each["type"] == "xid"]
    assert len(kinds) == 1 + (code == 13)
    gate.open()
    finished(server, job_id)


def test_a_gpu_that_fails_under_jobs_is_left_until_a_check_passes(
    server_fixture: ServerFixture, two: FakeGpus
) -> None:
    server = start_on_gpus(server_fixture, two)
    two.change(A, launch_error=ILLEGAL, launch_errors=10_000)
    jobs = [server.wait_for_end(server.submit("take", {"kernel": True}, retries=0)) for _ in range(3)]
    assert [job["state"] for job in jobs] == ["succeeded"] * 3
    # A check is enough to find it out: nothing of a second job has to fail there.
    assert all(len(server.attempts(job["id"])) <= 2 for job in jobs)
    sick = becomes(server, "gpu0", "quarantined")
    assert "the check failed" in sick["message"] and "illegal memory access" in sick["message"]
    two.restore(A)
    becomes(server, "gpu0", "ok", within_s=15)


def test_a_gpu_whose_driver_does_not_answer_is_unknown_and_since_when(
    server_fixture: ServerFixture, two: FakeGpus
) -> None:
    server = start_on_gpus(server_fixture, two)
    until(lambda: [condition(server, each)["state"] for each in CARDS] == ["ok", "ok"], "they are read")
    began = datetime.now(UTC)
    two.hang()
    found = becomes(server, "gpu0", "unknown", within_s=7)
    assert "has not been read for 5 s" in found["message"]
    assert began + timedelta(seconds=3) < datetime.fromisoformat(found["since"]) <= datetime.now(UTC)
    assert server.http.get("/readyz").json()["status"] == "degraded"
    two.answer()
    assert becomes(server, "gpu0", "ok", within_s=15)["message"] == ""


def test_simulated_ones_are_left_and_come_back_too(server_fixture: ServerFixture) -> None:
    server = server_fixture.start("--gpus", "sim:1x24GiB")
    for _ in range(3):
        job = server.wait_for_end(server.submit("device_error", {"kind": "sticky", "times": 99}))
        assert job["state"] == "failed" and job["attempt"] == 2
    assert "quarantined" in " ".join(each["message"] for each in devices(server)["sim0"]["events"])
    becomes(server, "sim0", "ok")
    # It is well, so the errors were the program's: they cost no device any more.
    for _ in range(4):
        server.wait_for_end(server.submit("device_error", {"kind": "sticky", "times": 99}))
    assert condition(server, "sim0")["state"] == "ok"
    assert server.wait_for_end(server.submit("device_error", {}))["state"] == "succeeded"


#: What runs on a lost device is left to itself.
LEFT_ALONE = [never("lost-device-ends-jobs")]
TRUSTED = [removed("untrusted-results")]
#: A check that passes is enough.
NO_RESET = [never("no-check-before-a-reset"), always("no-check-instead-of-a-reset")]


@pytest.mark.parametrize(
    ("guard", "shown", "fault"),
    [
        (LEFT_ALONE, lost_and_found, "runs again"),
        (TRUSTED, contained, "runs again"),
        (NO_RESET, needs_reset, "quarantined"),
    ],
)
def test_without_its_guard_it_would_show(
    tmp_path: Path,
    two: FakeGpus,
    guard: list[Change],
    shown: Callable[[ServerFixture, FakeGpus], None],
    fault: str,
) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, guard))
    try:
        with pytest.raises(AssertionError, match=fault):
            shown(server_fixture, two)
    finally:
        server_fixture.close()
