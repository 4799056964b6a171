"""The running server: what it tells of jobs and of itself, and how one finds them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.faults.server_fixture import Document, LiveServer, until
from tests.runner.coordinator.server_client import (
    devices,
    error_code,
    parse_time,
    pids_of_role,
    post,
    set_paused,
    wait_until_running,
)

JOB_FIELDS = """id handler queue state reason position eta_s priority input output error last_error progress
attempt retries_left
vram_bytes devices run_id tenant tags metadata created_at ready_at started_at finished_at urls"""


@pytest.fixture(scope="module")
def crowd(server: LiveServer) -> Document:
    """Jobs of one queue in many states, by a short word."""
    ids = {
        "good": server.submit("echo", {"a": 1}, queue="crowd", tags=["red", "x"], metadata={"who": "ann"}),
        "bad": server.submit("never", queue="crowd", tags=["red"]),
        "gone": server.submit("echo", queue="crowd", delay_s=60),
        "later": server.submit("echo", queue="crowd", delay_s=60, tags=["blue"]),
    }
    post(server, f"/jobs/{ids['gone']}/cancel", status=200)
    for word in ("good", "bad", "gone"):
        server.wait_for_end(ids[word])
    return ids


def words(crowd: Document, jobs: list[Document]) -> list[str]:
    names = {job_id: word for word, job_id in crowd.items()}
    return [names[job["id"]] for job in jobs]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "good bad gone later"),
        ({"state": "succeeded"}, "good"),
        ({"state": ["failed", "cancelled"]}, "bad gone"),
        ({"state": "queued"}, "later"),
        ({"reason": "scheduled"}, "later"),
        ({"reason": ["permanent_error", "cancelled"]}, "bad gone"),
        ({"handler": "never"}, "bad"),
        ({"handler": ["never", "echo"]}, "good bad gone later"),
        ({"tag": "red"}, "good bad"),
        ({"tag": "blue"}, "later"),
        ({"tag": "green"}, ""),
        ({"input.a": "1"}, "good"),
        ({"order": "desc"}, "later gone bad good"),
        ({"created_after": "2020-01-01T00:00:00Z"}, "good bad gone later"),
        ({"created_before": "2020-01-01T00:00:00Z"}, ""),
        ({"finished_after": "2020-01-01T00:00:00Z"}, "good bad gone"),
        ({"finished_before": "2020-01-01T00:00:00Z"}, ""),
    ],
)
def test_each_filter_finds_its_jobs(
    server: LiveServer, crowd: Document, filters: Document, expected: str
) -> None:
    params = {"order": "asc", "queue": "crowd", **filters}
    answer = server.http.get("/v1/jobs", params=params)
    assert answer.status_code == 200, answer.text
    assert words(crowd, answer.json()["data"]) == expected.split()


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_follow_each_other_in_both_orders(server: LiveServer, crowd: Document, order: str) -> None:
    params, seen = {"queue": "crowd", "limit": "1", "order": order}, []
    for _ in range(5):
        page = server.http.get("/v1/jobs", params=params).json()
        seen += words(crowd, page["data"])
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    expected = ["good", "bad", "gone", "later"]
    assert seen == (expected if order == "asc" else expected[::-1])
    newest = server.http.get("/v1/jobs", params={"queue": "crowd"}).json()["data"]
    assert words(crowd, newest) == expected[::-1]


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "state=done", "cursor=x", "nope=1", "order=up"])
def test_a_wrong_filter_is_refused(server: LiveServer, query: str) -> None:
    answer = server.http.get(f"/v1/jobs?{query}")
    assert answer.status_code == 422 and answer.json()["code"] == "validation_error", answer.text


def test_a_job_has_all_its_fields(server: LiveServer, crowd: Document) -> None:
    job = server.job(crowd["good"])
    assert set(JOB_FIELDS.split()) <= set(job)
    assert (job["input"], job["output"], job["tags"], job["metadata"]) == (
        {"a": 1},
        {"a": 1},
        ["red", "x"],
        {"who": "ann"},
    )
    assert (job["state"], job["reason"], job["error"], job["priority"]) == ("succeeded", None, None, 50)
    assert server.job(crowd["gone"])["error"]["code"] == server.job(crowd["gone"])["reason"] == "cancelled"
    assert server.http.get(job["urls"]["self"]).json() == job


def test_large_inputs_and_outputs_are_left_out_of_lists(server: LiveServer) -> None:
    text = "y" * 70_000
    job = server.wait_for_end(server.submit("echo", text, queue="large"))
    assert (job["input"], job["output"]) == (text, text)
    (listed,) = server.jobs(queue="large")
    assert (listed["input"], listed["output"]) == (None, None)
    assert listed["input_bytes"] == listed["output_bytes"] == 70_002
    assert server.http.get(f"/v1/jobs/{job['id']}/output").json() == text


def test_attempts_tell_where_and_how_long(server: LiveServer) -> None:
    job_id = server.submit("fails", {"until": 2}, retries=1, backoff=0.05)
    server.wait_for_end(job_id)
    first, second = server.attempts(job_id)
    for number, attempt in ((1, first), (2, second)):
        assert attempt["attempt"] == number and attempt["devices"] == ["cpu"] and attempt["worker"]
        assert attempt["run_s"] >= 0 and {"load_s", "vram_peak_bytes"} <= set(attempt)
    assert first["error"]["code"] == "handler_error" and second["error"] is None
    assert parse_time(second["started_at"]) >= parse_time(first["ended_at"])


def test_the_output_route_tells_what_there_is(server: LiveServer, crowd: Document) -> None:
    def get(job_id: str) -> tuple[int, str]:
        answer = server.http.get(f"/v1/jobs/{job_id}/output")
        return answer.status_code, answer.text

    assert get(crowd["good"]) == (200, '{"a":1}')
    assert get(crowd["bad"])[0] == 404 and "permanent_error" in get(crowd["bad"])[1]
    assert get(crowd["later"])[0] == 409 and "job_not_finished" in get(crowd["later"])[1]
    nothing = post(server, "/jobs", {"handler": "echo"})["id"]
    server.wait_for_end(nothing)
    assert get(nothing) == (200, "null")


def test_files_are_served_whole_and_in_parts(server: LiveServer) -> None:
    job = server.wait_for_end(server.submit("files", {"names": ["a b.bin"]}))
    reference = job["output"]
    assert (reference["name"], reference["size"], reference["$file"]) == ("a b.bin", 100, reference["id"])
    assert reference["url"] == f"/v1/jobs/{job['id']}/files/a%20b.bin"
    assert server.http.get(f"/v1/jobs/{job['id']}/files").json() == {"data": [reference]}
    answer = server.http.get(f"/v1/jobs/{job['id']}/output", follow_redirects=False)
    assert answer.status_code == 303
    whole = server.http.get(answer.headers["location"])
    assert whole.content == bytes(range(100)) and whole.headers["content-type"] == "image/png"
    part = server.http.get(reference["url"], headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert part.headers["content-range"] == "bytes 10-19/100"
    assert server.http.get(f"/v1/jobs/{job['id']}/files/other").status_code == 404
    two = server.wait_for_end(server.submit("files", {"names": ["a", "b"]}))
    assert server.http.get(f"/v1/jobs/{two['id']}/output").status_code == 200


def test_handlers_tell_their_needs_and_figures(server: LiveServer) -> None:
    found = {each["name"]: each for each in server.http.get("/v1/handlers").json()["data"]}
    even, big = found["even"], found["big"]
    assert even["state"] == "ok" and even["input_schema"]["properties"]["number"]["type"] == "integer"
    assert even["output_schema"]["type"] == "integer"
    assert big["options"]["vram_bytes"] == 20 << 30 and big["options"]["gpus"] == 1
    assert server.http.get("/v1/handlers/even").json()["name"] == "even"
    assert server.http.get("/v1/handlers/nope").status_code == 404
    assert {"run_s", "wait_s", "load_s", "runs"} <= set(even["figures"]) and even["learned"] == []


def test_devices_and_workers_tell_what_they_hold(server: LiveServer) -> None:
    server.wait_for_end(server.submit("small"))
    found = devices(server)
    assert set(found) == {"sim0", "sim1", "cpu"}
    for device in found.values():
        assert device["uuid"] and device["name"] and device["health"]
        for kind in ("total", "used", "reserved", "foreign"):
            assert isinstance(device[f"{kind}_bytes"], int)
    assert found["sim0"]["total_bytes"] == 24 << 30
    executors = found["sim0"]["executors"] + found["sim1"]["executors"]
    small = next(one for one in executors if one["handler"] == "small")
    assert {"handler", "model", "state", "resident_bytes"} <= set(small) and small["state"] == "idle"
    workers = server.http.get("/v1/workers").json()["data"]
    assert {worker["device"] for worker in workers if worker["role"] == "worker"} == set(found)
    assert sorted(w["pid"] for w in workers if w["role"] == "worker") == sorted(
        pids_of_role(server, "worker")
    )


def test_queues_tell_counts_reasons_and_figures(server: LiveServer, crowd: Document) -> None:
    queue = server.http.get("/v1/queues/crowd").json()
    assert queue["counts"] == {"queued": 1, "running": 0, "succeeded": 1, "failed": 1, "cancelled": 1}
    assert queue["reasons"] == {"scheduled": 1} and queue["paused"] is False and queue["running"] == 0
    assert queue["success_rate"] == 0.5 and queue["avg_run_s"] >= 0 and queue["peak_running"] >= 1
    assert {"concurrency", "rate", "oldest_wait_s"} <= set(queue)
    every = {each["name"]: each for each in server.http.get("/v1/queues").json()["data"]}
    assert every["crowd"] == queue and "default" in every
    assert server.http.get("/v1/queues/nobody").status_code == 404


def test_figures_of_the_whole_add_up(server: LiveServer, crowd: Document) -> None:
    before = server.http.get("/v1/stats").json()
    server.wait_for_end(server.submit("echo"))
    server.wait_for_end(server.submit("never"))
    after = server.http.get("/v1/stats").json()
    assert after["counts"]["succeeded"] == before["counts"]["succeeded"] + 1
    assert after["failures"]["permanent_error"] == before["failures"]["permanent_error"] + 1
    assert set(after["run_s"]) == {"p50", "p95"} == set(after["wait_s"]) and after["throughput_per_s"] > 0
    assert {"retried", "cancelled"} <= set(after)
    text = server.http.get("/metrics").text
    assert 'runner_device_up{device="sim0"} 1.0' in text
    for name in ("runner_jobs{", "runner_device_bytes{", "runner_commit_seconds", "runner_loop_lag_seconds"):
        assert name in text
    # Commits should take less than 10 ms: there the histogram tells more than its neighbours do.
    bounds = [
        line.split('"')[1] for line in text.splitlines() if line.startswith("runner_commit_seconds_bucket")
    ]
    assert {"0.008", "0.01", "0.0125"} <= set(bounds)


def test_bulk_answers_each_in_order(server: LiveServer) -> None:
    wanted = [
        {"handler": "echo", "input": 1},
        {"handler": "nope", "input": 1},
        {"handler": "even", "input": {"number": "x"}},
        {"handler": "echo", "input": 2, "color": "red"},
        {"handler": "big", "input": {}, "vram": "30GiB"},
        {"handler": "echo", "input": 3},
        7,
    ]
    lines = "\n".join(map(json.dumps, wanted))
    for body, kind in ((json.dumps({"jobs": wanted}), "json"), (lines, "x-ndjson")):
        headers = {"Content-Type": f"application/{kind}"}
        answer = server.http.post("/v1/jobs/bulk", content=body, headers=headers)
        assert answer.status_code == 202, answer.text
        jobs = answer.json()["jobs"]
        told = [job.get("code") for job in jobs]
        assert told == [
            None,
            "unknown_handler",
            "validation_error",
            "validation_error",
            "unsatisfiable",
            None,
            "validation_error",
        ]
        assert [job.get("status") for job in jobs] == [None, 404, 422, 422, 422, None, 422]
        assert [server.wait_for_end(jobs[n]["id"])["output"] for n in (0, 5)] == [1, 3]


@pytest.mark.timed
def test_prefer_wait_answers_with_the_end_or_when_the_time_is_over(server: LiveServer, gate: Path) -> None:
    def ask(body: Document, seconds: int) -> tuple[int, Document, float]:
        began = time.monotonic()
        answer = server.http.post("/v1/jobs", json=body, headers={"Prefer": f"wait={seconds}"})
        return answer.status_code, answer.json(), time.monotonic() - began

    status, job, took = ask({"handler": "echo", "input": 5}, 5)
    assert (status, job["state"], job["output"]) == (200, "succeeded", 5) and took < 2
    status, job, took = ask({"handler": "steady", "input": {"gate": str(gate)}}, 1)
    assert (status, job["state"]) == (202, "running") and 0.95 < took < 1.6
    status, failed, _ = ask({"handler": "never", "input": {}}, 5)
    assert (status, error_code(failed)) == (200, "permanent_error")
    gate.touch()
    assert server.wait_for_end(job["id"])["state"] == "succeeded"
    late = server.http.post("/v1/jobs", json={"handler": "echo"}, headers={"Prefer": "wait=301"})
    assert late.status_code in (200, 422)


def test_what_belongs_to_later_versions_is_refused(server: LiveServer) -> None:
    for field, value in {"unique": {"key": "a"}, "after": [], "held": True, "webhook": {"url": "x"}}.items():
        answer = server.http.post("/v1/jobs", json={"handler": "echo", field: value})
        assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"] == f"/{field}"
    for path in ("/v1/runs", "/v1/schedules", "/v1/events", "/v1/files"):
        assert server.http.get(path).status_code == 404, path


def test_events_have_rising_ids_and_end_with_done(server: LiveServer) -> None:
    job_id = server.submit("talk", {"n": 5})
    events = [event for event in server.events(job_id) if event.name != "waiting"]
    assert (events[0].name, events[0].id) == ("snapshot", None)
    assert [event.id for event in events[1:]] == list(range(1, len(events)))
    assert [event.data["chunk"] for event in events if event.name == "output"] == [0, 1, 2, 3, 4]
    assert events[-1].name == "done" and events[-1].data["output"] == [0, 1, 2, 3, 4]
    assert all({"job_id", "seq", "at"} <= set(event.data) for event in events[1:])


def test_a_queue_is_there_from_its_first_use(server: LiveServer) -> None:
    assert server.http.get("/v1/queues/fresh").status_code == 404
    set_paused(server, "fresh", True)
    assert server.http.get("/v1/queues/fresh").json()["paused"]
    set_paused(server, "fresh", False)


def test_a_running_job_tells_its_progress(server: LiveServer, gate: Path) -> None:
    job_id = server.submit("steady", {"gate": str(gate)})
    progress = wait_until_running(server, job_id)["progress"]
    assert progress == {
        "done": 0,
        "total": 1,
        "fraction": 0.0,
        "message": None,
        "details": progress["details"],
    }
    explained = server.http.get(f"/v1/jobs/{job_id}/explain").json()
    assert explained["reason"] == "running"
    assert re.fullmatch(r"running on \w+ for \d+ s", explained["message"])
    gate.touch()
    until(lambda: server.job(job_id)["state"] == "succeeded", "it ends")
