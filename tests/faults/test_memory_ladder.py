"""Effect: jobs that run out of device memory, up the whole ladder: each rung seen in their attempts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.mutate import Change, mutated, value
from tests.faults.server_fixture import Document, LiveServer, ServerFixture, read_trace, until

pytestmark = pytest.mark.slow

GIB = 1 << 30


def rungs(server: LiveServer, job_id: str) -> list[tuple[list[str], int, bool, str | None]]:
    """Of each attempt: devices, GiB granted, alone, the code of its error."""
    return [
        (
            each["devices"],
            each["granted_bytes"] // GIB,
            each["alone"],
            each["error"] and each["error"]["code"],
        )
        for each in server.attempts(job_id)
    ]


def pids(server: LiveServer, job_id: str) -> list[int]:
    """The process of each attempt."""
    return [event.data["chunk"] for event in server.events(job_id) if event.name == "output"]


def neighbour(server: LiveServer, gate: Path) -> str:
    """A job that is at work on a device until the gate opens."""
    job_id = server.submit("steady_on_gpu", {"gate": str(gate)})
    until(lambda: server.job(job_id)["progress"], "the neighbour works")
    return job_id


def waits_alone(server: LiveServer, job_id: str) -> None:
    """The job has run out of memory once, and waits until nobody is at work beside it."""
    for event in server.events(job_id):
        # What a stream tells is durable.
        if event.name == "status" and (event.data["state"], event.data["attempt"]) == ("queued", 1):
            break


def whole_ladder(server_fixture: ServerFixture) -> None:
    """Each rung brings more, and after the last the job fails with a report."""
    server, gate, trace = (
        server_fixture.start("--gpus", "sim:1x24GiB"),
        server_fixture.folder / "gate",
        server_fixture.folder / "trace",
    )
    neighbour(server, gate)
    job_id = server.submit("device_error", {"kind": "memory", "times": 99, "trace": str(trace)}, retries=5)
    waits_alone(server, job_id)
    why = server.http.get(f"/v1/jobs/{job_id}/explain").json()
    assert why["reason"] == "waiting_for_device" and "must run alone" in why["message"], why
    gate.touch()
    job = server.wait_for_end(job_id)
    out = "device_out_of_memory"
    assert rungs(server, job_id) == [
        (["sim0"], 4, False, out),
        (["sim0"], 4, True, out),
        (["sim0"], 6, True, out),
        (["sim0"], 24, True, out),
    ]
    assert (job["state"], job["error"]["code"], job["retries_left"]) == ("failed", out, 5)
    detail = job["error"]["detail"]
    assert detail["declared_bytes"] == 4 * GIB
    assert detail["granted_bytes"] == [4 * GIB, 4 * GIB, 6 * GIB, 24 * GIB]
    assert (detail["devices"], detail["neighbours"], detail["foreign_bytes"]) == (["sim0"], [], 0)
    assert "traceback" in detail and "4 GiB, 4 GiB, 6 GiB, 24 GiB" in job["error"]["message"]
    first, again, larger, whole = pids(server, job_id)
    assert first == again and len({again, larger, whole}) == 3
    assert read_trace(trace) == [(job_id, number) for number in (1, 2, 3, 4)]


def test_each_rung_brings_more_and_after_the_last_it_fails_with_a_report(
    server_fixture: ServerFixture,
) -> None:
    whole_ladder(server_fixture)


@pytest.mark.parametrize(
    "guard",
    [
        value("rung-kept", "1"),
        value("retried-alone", "False"),
    ],
    ids=["the rung is forgotten", "not alone"],
)
def test_without_its_guard_it_would_show(tmp_path: Path, guard: Change) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, [guard]))
    try:
        with pytest.raises(AssertionError, match=r"4|waiting_for_device"):
            whole_ladder(server_fixture)
    finally:
        server_fixture.close()


def test_who_was_alone_gets_more_at_once_and_idle_neighbours_make_room(server_fixture: ServerFixture) -> None:
    server = server_fixture.start("--gpus", "sim:1x24GiB")
    server.wait_for_end(server.submit("hungry", {"hold": "1GiB"}))
    job = server.wait_for_end(server.submit("device_error", {"kind": "memory", "times": 1}))
    assert (job["state"], job["output"]["granted"]) == ("succeeded", 6 * GIB)
    assert [each[1:3] for each in rungs(server, job["id"])] == [(4, False), (6, True)]

    def left() -> bool:
        (device,) = [each for each in server.http.get("/v1/devices").json()["data"] if each["id"] == "sim0"]
        return {each["granted_bytes"] for each in device["executors"]} == {6 * GIB}

    until(left, "those who idled beside it are gone")


def test_the_last_rung_is_the_largest_device(server_fixture: ServerFixture) -> None:
    server = server_fixture.start("--gpus", "sim:8GiB,24GiB")
    job = server.wait_for_end(server.submit("device_error", {"kind": "memory", "times": 2}, vram="7GiB"))
    assert (job["state"], job["output"]["granted"]) == ("succeeded", 24 * GIB)
    assert [each[:2] for each in rungs(server, job["id"])] == [
        (["sim0"], 7),
        (["sim1"], 10),
        (["sim1"], 24),
    ]


def test_who_has_a_whole_device_already_is_not_tried_again(server_fixture: ServerFixture) -> None:
    server = server_fixture.start("--gpus", "sim:1x4GiB")
    job = server.wait_for_end(server.submit("device_error", {"kind": "memory", "times": 1}))
    assert (job["error"]["code"], job["attempt"]) == ("device_out_of_memory", 1)


def test_weights_that_do_not_fit_are_loaded_with_more_room(server_fixture: ServerFixture) -> None:
    server = server_fixture.start("--gpus", "sim:1x24GiB")
    job = server.wait_for_end(server.submit("weighty"))
    assert (job["state"], job["output"]) == ("succeeded", 6 * GIB)
    assert rungs(server, job["id"])[0] == (["sim0"], 4, False, "device_out_of_memory")


def test_who_takes_more_than_there_is_goes_the_same_way(server_fixture: ServerFixture) -> None:
    server = server_fixture.start("--gpus", "sim:1x24GiB")
    job = server.wait_for_end(server.submit("hungry", {"hold": "30GiB"}))
    assert job["error"]["code"] == "device_out_of_memory"
    assert job["error"]["detail"]["peak_bytes"] == 30 * GIB
    exceeded = "memory_exceeded"
    assert [each[1:3] for each in rungs(server, job["id"])] == [(4, False), (6, True), (24, True)]
    assert server.attempts(job["id"])[0]["error"]["code"] == exceeded


@pytest.mark.parametrize("end", [ServerFixture.kill, ServerFixture.cut_power], ids=["kill", "power"])
def test_a_restart_in_the_middle_keeps_the_rung(server_fixture: ServerFixture, end: Any) -> None:
    server, gate = server_fixture.start("--gpus", "sim:1x24GiB"), server_fixture.folder / "gate"
    neighbour(server, gate)
    job_id = server.submit("device_error", {"kind": "memory", "times": 2})
    waits_alone(server, job_id)
    end(server_fixture, server)
    server = server_fixture.start("--gpus", "sim:1x24GiB")
    gate.touch()
    job = server.wait_for_end(job_id)
    assert (job["state"], job["output"]["granted"]) == ("succeeded", 6 * GIB)
    tried: list[Document] = server.attempts(job_id)
    assert [(each["granted_bytes"] // GIB, each["alone"]) for each in tried] == [
        (4, False),
        (4, True),
        (6, True),
    ]


def test_a_strict_handler_gets_no_more_than_it_declared(server_fixture: ServerFixture) -> None:
    server = server_fixture.start("--gpus", "sim:1x24GiB")
    job = server.wait_for_end(server.submit("modest"))
    assert (job["error"]["code"], job["attempt"]) == ("device_out_of_memory", 1)
    assert job["error"]["detail"]["largest_bytes"] == 4 * GIB


def test_a_job_that_is_run_again_by_hand_begins_at_the_foot(server_fixture: ServerFixture) -> None:
    server = server_fixture.start("--gpus", "sim:1x4GiB")
    job_id = server.submit("device_error", {"kind": "memory", "times": 1})
    assert server.wait_for_end(job_id)["state"] == "failed"
    assert server.http.post(f"/v1/jobs/{job_id}/retry").status_code == 202
    job = until(lambda: (found := server.job(job_id))["state"] == "succeeded" and found, "it runs again")
    assert job["output"]["granted"] == 4 * GIB
    assert [each["alone"] for each in server.attempts(job_id)] == [False, False]
