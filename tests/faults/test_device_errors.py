"""Effect: a device runs out of memory under a handler, or its context is lost: told by look-alikes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness import Document, House, Server, traced

GRANT = 4 << 30


def pids(server: Server, job: Document) -> list[int]:
    """The process of each attempt."""
    return [event.data["chunk"] for event in server.events(job["id"]) if event.name == "output"]


def run(server: Server, **data: object) -> Document:
    """A job without retries of its own, ended."""
    return server.ended(server.submit("device_error", data))


def test_out_of_device_memory_is_tried_once_more_with_more_room_and_costs_no_executor(house: House) -> None:
    server = house.start("--gpus", "sim:1x24GiB")
    job = run(server, kind="memory", times=1)
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job
    assert job["output"]["granted"] == GRANT * 3 // 2
    assert server.attempts(job["id"])[0]["error"]["code"] == "device_out_of_memory"
    first, second = pids(server, job)
    assert first != second, "the larger one is another"
    # The process in which it happened is as good as before, and stays.
    (device,) = [each for each in server.http.get("/v1/devices").json()["data"] if each["id"] == "sim0"]
    kept = {(each["state"], each["granted_bytes"]) for each in device["executors"]}
    assert kept == {("idle", GRANT), ("idle", GRANT * 3 // 2)}
    assert Path(f"/proc/{first}").exists()


def test_where_no_device_has_more_room_it_is_tried_again_with_what_there_is(house: House) -> None:
    server = house.start("--gpus", "sim:1x5GiB")
    job = run(server, kind="memory", times=1)
    assert (job["state"], job["output"]["granted"]) == ("succeeded", GRANT)


def test_after_a_lost_context_the_process_is_never_used_again(house: House) -> None:
    server = house.start("--gpus", "sim:1x24GiB")
    job = run(server, kind="sticky", times=1)
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job
    error = server.attempts(job["id"])[0]["error"]
    assert (error["code"], error["detail"]["context_lost"]) == ("handler_error", True)
    first, second = pids(server, job)
    assert first != second
    assert run(server)["output"]["pid"] == second


@pytest.mark.parametrize(("kind", "code"), [("memory", "device_out_of_memory"), ("sticky", "handler_error")])
def test_the_second_time_is_the_last(house: House, kind: str, code: str) -> None:
    server, trace = house.start("--gpus", "sim:1x24GiB"), house.folder / "trace"
    job = run(server, kind=kind, times=99, trace=str(trace))
    assert (job["state"], job["error"]["code"]) == ("failed", code)
    assert traced(trace) == [(job["id"], 1), (job["id"], 2)]
