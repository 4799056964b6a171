"""The running server: bytes of simulated devices, and of RAM, decide who runs where."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from gpu.scheduling.starvation import YOUNGER_MAX
from tests.faults.server_fixture import Document, LiveServer, until
from tests.runner.coordinator.server_client import (
    devices,
    error_code,
    executors,
    parse_time,
    wait_for_reason,
    wait_until_running,
)

GIB = 1 << 30


def hold(server: LiveServer, gate: Path, *handlers: str) -> list[str]:
    """Jobs that run until the gate opens."""
    ids = [server.submit(handler, {"gate": str(gate)}) for handler in handlers]
    for job_id in ids:
        wait_until_running(server, job_id)
    return ids


def reserved(server: LiveServer) -> list[int]:
    found = devices(server)
    return [found[name]["reserved_bytes"] // GIB for name in ("sim0", "sim1")]


def test_what_no_device_can_hold_is_refused_with_figures(server: LiveServer) -> None:
    answer = server.http.post("/v1/jobs", json={"handler": "big", "input": {}, "vram": "30GiB"})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "unsatisfiable")
    assert problem["needed_bytes"] == 30 * GIB
    assert {each["device"]: each["total_bytes"] for each in problem["devices"]} == {
        "sim0": 24 * GIB,
        "sim1": 24 * GIB,
    }
    assert "big needs 30 GiB, but no device has more than 24 GiB (sim0, sim1)" in problem["detail"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_who_waits_for_memory_is_told_in_words_and_figures(server: LiveServer, gate: Path) -> None:
    running = hold(server, gate, "big", "big")
    assert reserved(server) == [20, 20]
    waiting = server.submit("medium", {})
    job = wait_for_reason(server, waiting, "waiting_for_memory")
    assert job["vram_bytes"] == 10 * GIB and job["devices"] == []
    explained = server.http.get(f"/v1/jobs/{waiting}/explain").json()
    assert explained["reason"] == "waiting_for_memory" and explained["jobs_ahead"] == 0
    for device in explained["devices"]:
        assert (device["free_bytes"], device["needed_bytes"]) == (4 * GIB, 10 * GIB)
    assert "sim0 has 4 GiB free of 10 GiB needed" in explained["message"]
    assert (job["position"], explained["position"]) == (1, 1)
    told = server.http.get(f"/v1/jobs/{running[0]}/explain").json()["message"]
    assert re.fullmatch(r"running on sim[01] for \d+ s", told)
    gate.touch()
    done = server.wait_for_end(waiting)
    assert parse_time(done["started_at"]) >= min(
        parse_time(server.wait_for_end(each)["finished_at"]) for each in running
    )


def test_the_stream_of_a_waiting_job_says_why_and_what_changes(server: LiveServer, gate: Path) -> None:
    hold(server, gate, "big", "big")
    first, second = (server.submit("medium", {}) for _ in range(2))
    wait_for_reason(server, second, "waiting_for_memory")
    page = server.http.get("/v1/jobs", params={"state": "queued", "handler": "medium"}).json()
    assert {job["position"] for job in page["data"]} == {None}, "lists leave it out"
    events = server.events(second)
    assert [next(events).name for _ in range(2)] == ["snapshot", "status"]
    told = next(events)
    assert (told.name, told.id) == ("waiting", None)
    assert told.data["message"].startswith("waiting for memory: needs 10 GiB, 2nd")
    assert (told.data["reason"], told.data["position"]) == ("waiting_for_memory", 2)
    assert server.http.post(f"/v1/jobs/{first}/cancel", json={}).status_code == 200
    told = next(events)
    assert (told.name, told.data["position"]) == ("waiting", 1)
    gate.touch()
    names = [event.name for event in events if event.name != "waiting"]
    assert names[0] == "status" and names[-1] == "done"


def test_grants_never_pass_the_device(server: LiveServer, gate: Path) -> None:
    ids = [server.submit("medium", {"gate": str(gate)}) for _ in range(6)]
    until(lambda: server.http.get("/v1/stats").json()["counts"]["running"] == 4, "four of 10 GiB run")
    assert reserved(server) == [20, 20]
    gate.touch()
    jobs = [server.wait_for_end(job_id) for job_id in ids]
    assert all(job["output"]["granted"] == 10 * GIB for job in jobs)
    overlaps = [
        sum(
            parse_time(a["started_at"]) < parse_time(b["finished_at"])
            and parse_time(b["started_at"]) < parse_time(a["finished_at"])
            for b in jobs
        )
        for a in jobs
    ]
    assert max(overlaps) <= 6


@pytest.mark.slow
def test_idle_models_leave_when_their_bytes_are_needed_oldest_first(serve: object) -> None:
    server: LiveServer = serve(gpus="sim:1x24GiB")  # type: ignore[operator]
    for handler in ("medium", "medium2", "medium"):
        server.wait_for_end(server.submit(handler, {"hold": "10GiB"}))
    assert devices(server)["sim0"]["free_bytes"] == 4 * GIB
    # 4 GiB fit beside them; 8 GiB more do not, and medium2 is the one not used for longest.
    server.wait_for_end(server.submit("small", {"hold": "4GiB"}))
    assert len(executors(server, "medium")) == len(executors(server, "medium2")) == 1
    job_id = server.submit("unknown", {}, vram="8GiB")
    assert server.wait_for_end(job_id)["state"] == "succeeded"
    assert len(executors(server, "medium")) == 1 and not executors(server, "medium2")
    assert devices(server)["sim0"]["draining_bytes"] == 0


def test_a_warm_model_is_preferred_to_a_new_one(server: LiveServer) -> None:
    first = server.wait_for_end(server.submit("medium2", {}))
    again = [server.wait_for_end(server.submit("medium2", {})) for _ in range(4)]
    assert {job["output"]["pid"] for job in again} == {first["output"]["pid"]}
    assert len(executors(server, "medium2")) == 1


@pytest.mark.timed
def test_more_than_there_is_ends_it_and_fails_in_the_end(server: LiveServer) -> None:
    job_id = server.submit("small", {"hold": "30GiB", "gate": "/nowhere"})
    job = server.wait_for_end(job_id)
    assert (job["state"], error_code(job)) == ("failed", "device_out_of_memory")
    assert parse_time(job["finished_at"]) - parse_time(job["created_at"]) < 6
    error = server.attempts(job_id)[0]["error"]
    assert error["code"] == "memory_exceeded"
    assert "30720 MiB" in error["message"] and "4096 MiB" in error["message"]


@pytest.mark.slow
def test_more_than_was_granted_is_granted_where_there_is_room(server: LiveServer, gate: Path) -> None:
    job_id = server.submit("small", {"hold": "6GiB", "gate": str(gate)})
    wait_until_running(server, job_id)
    until(lambda: executors(server, "small")[0]["granted_bytes"] == 6 * GIB, "its grant is raised")
    assert sorted(reserved(server)) == [0, 6]
    gate.touch()
    assert server.wait_for_end(job_id)["state"] == "succeeded"
    # The executor knows: what it takes now is no news.
    before = devices(server)
    again = server.wait_for_end(server.submit("small", {"hold": "5GiB"}))
    why = server.http.get("/v1/handlers/small").text
    assert again["output"]["granted"] == 6 * GIB, f"before: {before}\nnow: {devices(server)}\n{why}"


def test_without_room_the_one_that_is_over_ends_and_its_neighbour_does_not(serve: object, gate: Path) -> None:
    server: LiveServer = serve(gpus="sim:1x8GiB")  # type: ignore[operator]
    (beside,) = hold(server, gate, "small")
    job_id = server.submit("small", {"hold": "5GiB", "gate": str(gate)})
    until(lambda: server.job(job_id)["attempt"] == 1 and server.job(job_id)["state"] == "queued", "it ended")
    error = server.attempts(job_id)[0]["error"]
    assert error["code"] == "memory_exceeded"
    (device,) = error["detail"]["devices"]
    assert (device["device"], device["short_bytes"]) == ("sim0", 1 * GIB)
    assert [one["charged_bytes"] for one in error["detail"]["neighbours"]] == [4 * GIB]
    gate.touch()
    assert server.wait_for_end(beside)["state"] == "succeeded"
    # Alone there is room for it.
    assert server.wait_for_end(job_id)["state"] == "succeeded"
    assert [each["alone"] for each in server.attempts(job_id)] == [False, True]


def test_an_unknown_need_is_measured_alone_and_then_shared(serve: object, gate: Path) -> None:
    server: LiveServer = serve(gpus="sim:1x24GiB")  # type: ignore[operator]
    alone = server.submit("unknown", {"hold": "4GiB", "gate": str(gate)})
    wait_until_running(server, alone)
    beside = [server.submit("unknown", {"hold": "4GiB"}), server.submit("small", {})]
    assert devices(server)["sim0"]["reserved_bytes"] == 24 * GIB
    for job_id in beside:
        assert server.job(job_id)["state"] == "queued"
    gate.touch()
    assert server.wait_for_end(alone)["output"]["granted"] == 24 * GIB
    for job_id in beside:
        assert server.wait_for_end(job_id)["state"] == "succeeded"
    (attempt,) = server.attempts(alone)
    assert attempt["vram_peak_bytes"] == 4 * GIB
    gate.unlink()
    # Now its measured peak (and a margin) is what it is granted: more than one fit.
    more = hold(server, gate, "unknown", "unknown", "unknown")
    assert devices(server)["sim0"]["reserved_bytes"] < 20 * GIB
    (learned,) = server.http.get("/v1/handlers/unknown").json()["learned"]
    assert learned["vram"]["peak_bytes"] == 4 * GIB and 4 * GIB < learned["vram"]["grant_bytes"] < 7 * GIB
    gate.touch()
    assert all(server.wait_for_end(job_id)["state"] == "succeeded" for job_id in more)


@pytest.mark.slow
def test_a_big_job_among_a_stream_of_small_ones_starts_soon(serve: object) -> None:
    server: LiveServer = serve(gpus="sim:1x24GiB")  # type: ignore[operator]
    stop = threading.Event()
    small: list[str] = []

    def stream() -> None:
        while not stop.is_set() and len(small) < 200:
            small.extend(server.submit_many("small", [{}] * 4, timeout_s=5))
            until(lambda: server.counts()["queued"] < 12, "the line is short")

    pump = threading.Thread(target=stream)
    pump.start()
    until(lambda: len(small) > 24, "small ones flow")
    big = server.wait_for_end(server.submit("big", {}), within_s=6)
    stop.set()
    pump.join()
    assert big["state"] == "succeeded"
    jobs = [server.wait_for_end(job_id) for job_id in small]
    between = [
        job
        for job in jobs
        if parse_time(big["created_at"]) < parse_time(job["created_at"]) and started_before(job, big)
    ]
    # Short ones may go before it so often; 16 more can have been handed out by then, and 8 by a guess.
    assert len(between) <= YOUNGER_MAX + 24, len(between)


def started_before(job: Document, other: Document) -> bool:
    return parse_time(job["started_at"]) < parse_time(other["started_at"])


def test_ram_beyond_its_cap_is_memory_exceeded_for_real(server: LiveServer) -> None:
    assert server.wait_for_end(server.submit("capped", {"blocks": 2}))["output"] == 2
    job = server.wait_for_end(server.submit("capped", {"blocks": 40}))
    assert (job["state"], error_code(job)) == ("failed", "memory_exceeded")
    assert server.wait_for_end(server.submit("capped", {"blocks": 2}))["output"] == 2


@pytest.mark.slow
def test_vram_counts_as_ram_where_there_is_no_gpu(serve: object, gate: Path) -> None:
    server: LiveServer = serve(gpus="none")  # type: ignore[operator]
    assert set(devices(server)) == {"cpu"}
    total = devices(server)["cpu"]["total_bytes"]
    refused = server.http.post("/v1/jobs", json={"handler": "small", "input": {}, "vram": total * 2})
    assert (refused.status_code, refused.json()["code"]) == (422, "unsatisfiable")
    job_id = server.submit("small", {"gate": str(gate)}, vram="256MiB")
    assert wait_until_running(server, job_id)["devices"] == ["cpu"]
    assert devices(server)["cpu"]["reserved_bytes"] >= 256 << 20
    gate.touch()
    assert server.wait_for_end(job_id)["state"] == "succeeded"


@pytest.mark.parametrize("vram", ["0", -1, "many", 2**70])
def test_a_wrong_size_is_refused(server: LiveServer, vram: object) -> None:
    answer = server.http.post("/v1/jobs", json={"handler": "small", "input": {}, "vram": vram})
    assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"] == "/vram"


def test_an_executor_is_loaded_for_one_model(server: LiveServer) -> None:
    inputs: list[Document] = [{"checkpoint": {"name": "a"}}, {"checkpoint": {"name": "b"}}, {}]
    first = [server.wait_for_end(server.submit("models", each))["output"] for each in inputs]
    assert [(each["loaded"], each["model"]) for each in first] == [("a", "a"), ("b", "b"), ("", "")]
    assert len({each["pid"] for each in first}) == 3
    assert sorted(str(each["model"]) for each in executors(server, "models")) == ["None", "a", "b"]
    wide = {"checkpoint": {"name": "b"}, "width": 4096, "height": 4096}
    assert server.wait_for_end(server.submit("models", wide))["output"]["pid"] == first[1]["pid"]


def test_what_names_no_model_is_refused_with_a_pointer(server: LiveServer) -> None:
    body = {"handler": "models", "input": {"checkpoint": {"name": ["a"]}}}
    answer = server.http.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/input/checkpoint/name")
    bulk = server.http.post("/v1/jobs/bulk", json={"jobs": [body, {"handler": "models", "input": {}}]}).json()
    assert bulk["jobs"][0]["errors"][0]["pointer"] == "/jobs/0/input/checkpoint/name"
    assert server.wait_for_end(bulk["jobs"][1]["id"])["output"]["model"] == ""
