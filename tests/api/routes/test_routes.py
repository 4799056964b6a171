"""Every route over real HTTP: what it asks of the coordinator and what it answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from runner.jobs.job import Submission
from runner.protocol import front as front_protocol
from tests.api.fake_coordinator import HANDLERS, FakeCoordinator, RunningFront, running_front, spec
from tests.faults.server_fixture import until

NO_JOB = "00000000-0000-7000-8000-999999999999"


def last(fake: FakeCoordinator, kind: type) -> Any:
    return next(asked for asked in reversed(fake.asked) if type(asked) is kind)


def assert_problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert problem["title"] and problem["detail"] and problem["type"]
    return problem


def test_a_job_is_accepted_with_its_place(http: httpx2.Client, front: RunningFront) -> None:
    answer = http.post("/v1/jobs", json={"handler": "slow", "input": {"a": 1}, "priority": "high"})
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    asked: Submission = last(front.fake, front_protocol.SubmitJobs).jobs[0]
    assert (asked.handler, asked.input, asked.priority) == ("slow", b'{"a":1}', 70)
    assert "preference-applied" not in answer.headers


def test_the_input_travels_as_one_line_of_json(http: httpx2.Client, front: RunningFront) -> None:
    body = b'{"handler": "slow",\r\n "input": {\n "a" : [1.0, "\\u00e9\\n"] }}'
    http.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert last(front.fake, front_protocol.SubmitJobs).jobs[0].input == '{"a":[1.0,"é\\n"]}'.encode()


def test_a_wait_gives_the_ended_job(http: httpx2.Client) -> None:
    answer = http.post("/v1/jobs", json={"handler": "echo", "input": 7}, headers={"prefer": "wait=5"})
    assert (answer.status_code, answer.json()["output"]) == (200, 7)
    assert answer.headers["preference-applied"] == "wait=5"


def test_a_wait_that_is_over_gives_what_there_is(http: httpx2.Client) -> None:
    answer = http.post("/v1/jobs", json={"handler": "slow"}, headers={"prefer": "wait=1"})
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")


def test_the_handlers_own_path_names_the_handler(http: httpx2.Client, front: RunningFront) -> None:
    answer = http.post("/v1/handlers/paint/jobs", json={"input": {"text": "x", "steps": 2}})
    assert answer.status_code == 202
    assert last(front.fake, front_protocol.SubmitJobs).jobs[0].handler == "paint"
    twice = http.post("/v1/handlers/paint/jobs", json={"handler": "paint", "input": {"text": "x"}})
    assert assert_problem(twice, 422, "validation_error")["errors"][0]["pointer"] == "/handler"


@pytest.mark.parametrize(
    ("input", "pointer"),
    [
        ({"steps": 1}, "/input"),
        ({"text": "x", "steps": 0}, "/input/steps"),
        ({"text": "x", "steps": "2"}, "/input/steps"),
        ({"text": "x", "style": {"name": 1}}, "/input/style/name"),
        (None, "/input"),
    ],
)
def test_an_input_is_held_to_its_schema(http: httpx2.Client, input: Any, pointer: str) -> None:
    answer = http.post("/v1/jobs", json={"handler": "paint", "input": input})
    assert assert_problem(answer, 422, "validation_error")["errors"][0]["pointer"] == pointer


def test_unknown_and_broken_handlers_are_told_apart(http: httpx2.Client) -> None:
    assert_problem(http.post("/v1/jobs", json={"handler": "none"}), 404, "unknown_handler")
    broken = assert_problem(http.post("/v1/jobs", json={"handler": "bad"}), 422, "handler_broken")
    assert "no torch" in broken["error"]


def test_a_handler_under_description_is_awaited(http: httpx2.Client, front: RunningFront) -> None:
    front.fake.send(front_protocol.HandlersUpdate([*HANDLERS, spec("late", state="describing")], True))
    # The front may read the request before the update, which comes through another socket.
    until(lambda: http.post("/v1/jobs", json={"handler": "late"}).status_code == 202, "the update is read")
    assert last(front.fake, front_protocol.AwaitHandler).name == "late"
    front.fake.send(front_protocol.HandlersUpdate(HANDLERS, False))


def test_idempotency_keys_are_refused_not_ignored(http: httpx2.Client) -> None:
    for path, body in (("/v1/jobs", {"handler": "echo"}), ("/v1/jobs/bulk", {"jobs": []})):
        answer = http.post(path, json=body, headers={"idempotency-key": "k"})
        assert assert_problem(answer, 422, "validation_error")["errors"][0]["pointer"] == "/Idempotency-Key"


def test_a_coordinators_problem_is_passed_on(http: httpx2.Client, front: RunningFront) -> None:
    body = msgspec.json.encode({"code": "queue_full", "title": "Full", "detail": "full", "queued": 2_000_000})
    front.fake.replies["submit"] = front_protocol.Reply(0, 429, body, 1.5)
    answer = http.post("/v1/jobs", json={"handler": "echo"})
    del front.fake.replies["submit"]
    assert assert_problem(answer, 429, "queue_full")["queued"] == 2_000_000
    assert answer.headers["retry-after"] == "2"
    assert "location" not in answer.headers


def test_bulk_answers_each_job_in_order(http: httpx2.Client) -> None:
    jobs = [
        {"handler": "echo"},
        {"handler": "none"},
        {"handler": "slow"},
        {"handler": "paint", "input": {"text": 1}},
    ]
    answer = http.post(
        "/v1/jobs/bulk", json={"jobs": [*jobs, 7, {"handler": "paint", "input": {"text": "x"}}]}
    )
    rows = answer.json()["jobs"]
    assert answer.status_code == 202
    assert [row.get("code", row.get("state")) for row in rows] == [
        "queued", "unknown_handler", "queue_full", "validation_error", "validation_error", "queued",
    ]  # fmt: skip
    assert rows[3]["errors"][0]["pointer"] == "/jobs/3/input/text"
    assert (rows[0]["queue"], rows[5]["queue"]) == ("default", "gpu")
    assert rows[0]["urls"]["self"] == f"/v1/jobs/{rows[0]['id']}"


def test_bulk_takes_a_job_a_line(http: httpx2.Client) -> None:
    body = b'{"handler":"echo"}\n\n{"handler":\n{"handler":"echo","x":1}\n'
    answer = http.post("/v1/jobs/bulk", content=body, headers={"content-type": "application/x-ndjson"})
    rows = answer.json()["jobs"]
    assert [row.get("code") for row in rows] == [None, "validation_error", "validation_error"]
    assert [row["errors"][0]["pointer"] for row in rows[1:]] == ["/1", "/2/x"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/jobs"),
        ({"jobs": {}}, "/jobs"),
        ({"jobs": [], "run_id": "x"}, "/run_id"),
        ({"jobs": [], "x": 1}, "/x"),
        ({"jobs": [{}] * 10_001}, "/jobs"),
        ([], "/jobs"),
    ],
)
def test_a_bulk_request_that_is_wrong_as_a_whole_is_refused(
    http: httpx2.Client, body: Any, pointer: str
) -> None:
    answer = http.post("/v1/jobs/bulk", json=body)
    assert assert_problem(answer, 422, "validation_error")["errors"][0]["pointer"] == pointer


def test_jobs_are_found_by_filters(http: httpx2.Client, front: RunningFront) -> None:
    answer = http.get("/v1/jobs", params={"state": "queued", "limit": 3, "input.a": "1"})
    assert answer.status_code == 200 and "next_cursor" in answer.json()
    query = last(front.fake, front_protocol.ListJobs).query
    assert (query.states, query.limit, query.inputs) == (["queued"], 3, [("a", b"1")])
    assert_problem(http.get("/v1/jobs?run_id=x"), 422, "validation_error")


def test_a_job_is_shown_and_awaited(http: httpx2.Client, front: RunningFront) -> None:
    job = front.fake.new()
    assert http.get(f"/v1/jobs/{job.id}").json()["id"] == job.id
    front.fake.finish(job)
    answer = http.get(f"/v1/jobs/{job.id}", headers={"prefer": "wait=9"})
    assert answer.headers["preference-applied"] == "wait=9"
    assert last(front.fake, front_protocol.GetJob).wait_s == 9


@pytest.mark.parametrize("path", ["", "/events"])
def test_a_job_that_is_not_there_is_404(http: httpx2.Client, path: str) -> None:
    assert_problem(http.get(f"/v1/jobs/{NO_JOB}{path}"), 404, "not_found")
    assert_problem(http.get(f"/v1/jobs/x{path}"), 404, "not_found")


def test_cancel_retry_and_delete_reach_the_coordinator(http: httpx2.Client, front: RunningFront) -> None:
    job = front.fake.new()
    assert http.post(f"/v1/jobs/{job.id}/cancel").status_code == 202
    http.post(f"/v1/jobs/{job.id}/cancel", json={"reason": "late", "force": True})
    asked = last(front.fake, front_protocol.JobAction)
    assert (asked.action, asked.reason, asked.force) == ("cancel", "late", True)
    assert http.post(f"/v1/jobs/{job.id}/retry").status_code == 202
    gone = http.delete(f"/v1/jobs/{job.id}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert_problem(http.delete(f"/v1/jobs/{job.id}"), 404, "not_found")


@pytest.mark.parametrize("body", [{"why": "x"}, {"reason": 1}, {"force": "yes"}, {"reason": "x" * 1001}, []])
def test_a_bad_cancel_is_refused(http: httpx2.Client, front: RunningFront, body: Any) -> None:
    job = front.fake.new()
    assert_problem(http.post(f"/v1/jobs/{job.id}/cancel", json=body), 422, "validation_error")
    assert_problem(http.post(f"/v1/jobs/{job.id}/retry", json={"x": 1}), 422, "validation_error")


@pytest.mark.parametrize("what", ["explain", "attempts", "files"])
def test_documents_of_a_job_are_passed_on(http: httpx2.Client, front: RunningFront, what: str) -> None:
    job = front.fake.new()
    assert http.get(f"/v1/jobs/{job.id}/{what}").json() == {"what": what, "subject": job.id}


def test_an_output_is_given_as_it_is_unless_it_is_one_file(http: httpx2.Client, front: RunningFront) -> None:
    job = front.fake.new()
    reference = {"$file": "f", "name": "a b.png", "url": f"/v1/jobs/{job.id}/files/a b.png"}
    cases: list[tuple[Any, int, str | None]] = [
        ({"a": 1}, 200, None),
        ([reference], 200, None),
        (reference, 303, f"/v1/jobs/{job.id}/files/a%20b.png"),
        ({"$file": "f", "name": "x", "url": "https://evil.example/"}, 303, f"/v1/jobs/{job.id}/files/x"),
    ]
    for output, status, location in cases:
        front.fake.replies["output"] = front_protocol.Reply(0, 200, json.dumps(output).encode())
        answer = http.get(f"/v1/jobs/{job.id}/output", follow_redirects=False)
        assert (answer.status_code, answer.headers.get("location"), answer.json()) == (
            status,
            location,
            output,
        )
    early = msgspec.json.encode({"code": "job_not_finished", "title": "t", "detail": "d"})
    front.fake.replies["output"] = front_protocol.Reply(0, 409, early)
    assert_problem(http.get(f"/v1/jobs/{job.id}/output"), 409, "job_not_finished")


def put_file(front: RunningFront, path: Path, content_type: str) -> None:
    found = {"path": str(path), "file": {"name": path.name, "content_type": content_type, "sha256": "x"}}
    front.fake.replies["file"] = front_protocol.Reply(0, 200, msgspec.json.encode(found))


def test_a_file_comes_whole_or_in_ranges(http: httpx2.Client, front: RunningFront, tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    path.write_bytes(bytes(range(200)))
    put_file(front, path, "image/png")
    url = f"/v1/jobs/{NO_JOB}/files/plot.png"
    whole = http.get(url)
    assert (whole.content, whole.headers["content-type"]) == (bytes(range(200)), "image/png")
    assert whole.headers["content-disposition"] == 'attachment; filename="plot.png"'
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = http.get(url, headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert_problem(http.get(url, headers={"range": "bytes=999-"}), 416, "range_not_satisfiable")


def test_a_file_is_never_a_page_nor_a_link(http: httpx2.Client, front: RunningFront, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<script>1</script>")
    put_file(front, page, "text/html")
    shown = http.get(f"/v1/jobs/{NO_JOB}/files/page.html")
    assert shown.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in shown.headers["content-security-policy"]
    link = tmp_path / "link"
    link.symlink_to(page)
    for path in (link, tmp_path / "gone", tmp_path):
        put_file(front, path, "text/plain")
        assert_problem(http.get(f"/v1/jobs/{NO_JOB}/files/x"), 404, "not_found")


@pytest.mark.parametrize("name", ["..%2fsecret", "a%2f..%2fb", "%2e%2e%2f", "%2f"])
def test_no_path_leads_out_of_a_jobs_files(http: httpx2.Client, front: RunningFront, name: str) -> None:
    before = len(front.fake.asked)
    assert http.get(f"/v1/jobs/{NO_JOB}/files/{name}").status_code in (404, 405)
    assert len(front.fake.asked) == before


@pytest.mark.parametrize("what", ["queues", "handlers", "devices", "workers", "stats"])
def test_lists_are_passed_on(http: httpx2.Client, what: str) -> None:
    assert http.get(f"/v1/{what}").json() == {"what": what, "subject": None}
    assert_problem(http.get(f"/v1/{what}?x=1"), 422, "validation_error")


def test_one_queue_and_one_handler_are_passed_on(http: httpx2.Client) -> None:
    assert http.get("/v1/queues/a.b-c").json()["subject"] == "a.b-c"
    assert http.get("/v1/handlers/paint").json()["subject"] == "paint"
    assert_problem(http.get("/v1/queues/a%20b"), 404, "not_found")


def test_queues_are_paused_by_post_and_created_by_put(http: httpx2.Client, front: RunningFront) -> None:
    assert http.post("/v1/queues/q/pause").json() == {"name": "q", "paused": True}
    assert http.put("/v1/queues/q", json={"paused": False}).json() == {"name": "q", "paused": False}
    assert front.fake.asked[-1].may_create is True
    bodies: list[Any] = [{}, {"paused": "yes"}, {"paused": True, "rate": 1}, [], {"paused": None}]
    for body in bodies:
        assert_problem(http.put("/v1/queues/q", json=body), 422, "validation_error")
    assert http.post("/v1/queues/q/resume", json={}).json() == {"name": "q", "paused": False}
    assert_problem(http.post("/v1/queues/q/pause", json={"x": 1}), 422, "validation_error")
    answer = http.get("/v1/queues/q/pause")
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_a_device_is_drained_and_resumed_by_post_and_changed_by_patch(http: httpx2.Client) -> None:
    asked = http.post("/v1/devices/gpu0/drain").json()
    assert asked == {"device": "gpu0", "drained": True, "max_executors": None}
    asked = http.post("/v1/devices/GPU-12-ab/resume", json={}).json()
    assert asked == {"device": "GPU-12-ab", "drained": False, "max_executors": None}
    assert_problem(http.post("/v1/devices/gpu0/drain", json={"x": 1}), 422, "validation_error")
    for given, told in ((3, 3), (None, 0)):
        asked = http.patch("/v1/devices/gpu0", json={"max_executors": given}).json()
        assert asked == {"device": "gpu0", "drained": None, "max_executors": told}
    for wrong in (0, True, 1.0, 1001, "2"):
        assert_problem(http.patch("/v1/devices/gpu0", json={"max_executors": wrong}), 422, "validation_error")
    for body in (b"{}", b"[]", b'{"max_executors": 2, "name": "x"}'):
        answer = http.patch("/v1/devices/gpu0", content=body, headers={"content-type": "application/json"})
        assert_problem(answer, 422, "validation_error")


def test_a_reload_is_asked_for_by_post_without_a_body(http: httpx2.Client, front: RunningFront) -> None:
    answer = http.post("/v1/handlers/reload")
    assert (answer.status_code, answer.json()) == (200, {"changed": ["echo"]})
    assert_problem(http.post("/v1/handlers/reload", json={"name": "echo"}), 422, "validation_error")
    assert_problem(http.post("/v1/handlers/reload?name=echo"), 422, "validation_error")
    assert http.get("/v1/handlers/reload").json()["subject"] == "reload", "a handler may have this name"
    front.fake.replies["reload"] = front_protocol.Reply(
        0, 409, b'{"code":"reload_refused","title":"t","detail":"two"}'
    )
    assert_problem(http.post("/v1/handlers/reload"), 409, "reload_refused")


def test_health_readiness_and_metrics(http: httpx2.Client, front: RunningFront) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    front.fake.send(front_protocol.MemoryLevel("reports"))
    until(lambda: http.get("/healthz").json() == {"status": "ok", "level": "reports"}, "the front is told")
    front.fake.replies["ready"] = front_protocol.Reply(0, 200, b'{"status":"degraded","parts":{}}')
    assert http.get("/readyz").json()["status"] == "degraded"
    parts = {"store": {"state": "unavailable"}}
    body = msgspec.json.encode({"status": "unavailable", "parts": parts})
    front.fake.replies["ready"] = front_protocol.Reply(0, 503, body)
    assert assert_problem(http.get("/readyz"), 503, "unavailable")["parts"] == parts
    front.fake.replies["metrics"] = front_protocol.Reply(0, 200, b"runner_jobs 1\n")
    answer = http.get("/metrics")
    assert (answer.text, answer.headers["content-type"].split(";")[0]) == ("runner_jobs 1\n", "text/plain")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/jobs/actions"), ("POST", "/v1/runs"), ("GET", "/v1/schedules"), ("POST", "/v1/files"),
        ("GET", "/v1/events"), ("GET", "/"), ("GET", "/v1"), ("GET", "/v1/jobs/"), ("GET", "//v1/jobs"),
        ("GET", f"/v1/jobs/{NO_JOB}/deliveries"), ("POST", "/v1/queues/q/drain"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_404(http: httpx2.Client, front: RunningFront, method: str, path: str) -> None:
    assert_problem(http.request(method, front.url + path), 404, "not_found")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/", "there is nothing at /; see /docs for all routes"),
        ("/v1/jobs/01a203b1/events", "there is no job '01a203b1': an id has 36 characters"),
        ("/v1/jobs/", "there is nothing at /v1/jobs/"),
        ("/v1/other", "there is nothing at /v1/other"),
    ],
)
def test_what_is_not_there_is_told_in_a_helpful_way(http: httpx2.Client, path: str, said: str) -> None:
    assert http.get(path).json()["detail"] == said


def test_a_browser_at_the_bare_address_finds_the_docs(http: httpx2.Client) -> None:
    answer = http.get("/", headers={"accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")
    with running_front(token="secret") as front:
        asked = httpx2.get(front.url + "/", headers={"accept": "text/html"}, follow_redirects=True)
        # The page that asks for the token.
        assert asked.status_code == 401 and "<html" in asked.text
        assert httpx2.get(front.url + "/").json()["code"] == "unauthorized"


def test_a_wrong_method_names_the_right_ones(http: httpx2.Client) -> None:
    answer = http.put("/v1/jobs", json={})
    assert_problem(answer, 405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


def test_head_tells_the_headers_alone(http: httpx2.Client, front: RunningFront) -> None:
    job = front.fake.new()
    for path in ("/healthz", f"/v1/jobs/{job.id}", f"/v1/jobs/{job.id}/events"):
        answer = http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_answers_carry_security_headers_and_no_server_name(http: httpx2.Client) -> None:
    for path in ("/v1/jobs", "/none", "/docs"):
        headers = http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "server" not in headers


def test_a_fault_of_ours_tells_nothing_of_the_inside(http: httpx2.Client, front: RunningFront) -> None:
    front.fake.replies["file"] = front_protocol.Reply(0, 200, b'{"secret": "inside"}')
    answer = http.get(f"/v1/jobs/{NO_JOB}/files/x")
    assert_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text and "Traceback" not in answer.text


def test_a_load_says_which_and_how_long_it_waits(http: httpx2.Client, front: RunningFront) -> None:
    answer = http.post(
        "/v1/handlers/paint/load", json={"model": "xl", "device": "gpu1"}, headers={"prefer": "wait=7"}
    )
    assert (answer.status_code, answer.json()) == (202, {"state": "loading"})
    assert answer.headers["preference-applied"] == "wait=7"
    asked = last(front.fake, front_protocol.LoadHandler)
    assert (asked.name, asked.model, asked.device, asked.wait_s) == ("paint", "xl", "gpu1", 7.0)
    assert http.post("/v1/handlers/paint/load").status_code == 202
    asked = last(front.fake, front_protocol.LoadHandler)
    assert (asked.model, asked.device, asked.wait_s) == (None, None, 0.0)


def test_a_load_that_failed_is_a_problem_with_its_error(http: httpx2.Client, front: RunningFront) -> None:
    error = {"code": "load_error", "message": "no weights", "detail": None}
    document = {"code": "not_loaded", "title": "t", "detail": "d", "error": error}
    front.fake.replies["load"] = front_protocol.Reply(0, 409, msgspec.json.encode(document))
    problem = assert_problem(http.post("/v1/handlers/paint/load"), 409, "not_loaded")
    assert problem["error"] == error


def test_an_unload_says_which(http: httpx2.Client, front: RunningFront) -> None:
    answer = http.post("/v1/handlers/paint/unload", json={"model": None, "device": "gpu0"})
    assert (answer.status_code, answer.json()) == (202, {"executors": []})
    asked = last(front.fake, front_protocol.UnloadHandler)
    assert (asked.name, asked.model, asked.device) == ("paint", None, "gpu0")


@pytest.mark.parametrize("verb", ["load", "unload"])
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"model": 3}, "/model"),
        ({"model": "x" * 201}, "/model"),
        ({"device": "a b"}, "/device"),
        ({"x": 1}, "/x"),
    ],
)
def test_what_is_to_be_loaded_is_named_by_texts(
    http: httpx2.Client, verb: str, body: dict[str, Any], pointer: str
) -> None:
    problem = assert_problem(http.post(f"/v1/handlers/paint/{verb}", json=body), 422, "validation_error")
    assert [one["pointer"] for one in problem["errors"]] == [pointer]


def test_fields_that_a_handler_ignores_are_named(http: httpx2.Client) -> None:
    body = {"handler": "paint", "input": {"text": "a", "stepz": 3}}
    warning = "input.stepz is not a field of the handler's input and is ignored; did you mean 'steps'?"
    answer = http.post("/v1/jobs", json=body)
    assert answer.status_code == 202 and answer.json()["warnings"] == [warning]
    assert answer.json()["input"] == body["input"]
    bulk = http.post("/v1/jobs/bulk", json={"jobs": [body, {"handler": "paint", "input": {"text": "a"}}]})
    first, second = bulk.json()["jobs"]
    assert first["warnings"] == [warning] and "warnings" not in second


@pytest.mark.parametrize("field", ["vram", "gpus"])
def test_gpu_options_are_refused_for_a_handler_without_a_gpu(http: httpx2.Client, field: str) -> None:
    answer = http.post("/v1/jobs", json={"handler": "echo", field: 1 << 30})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{field}"]


def test_null_fields_are_as_if_left_out(http: httpx2.Client) -> None:
    nulls = {"gpus": None, "vram": None, "webhook": None, "run_id": None, "priority": None, "tags": None}
    answer = http.post("/v1/jobs", json={"handler": "echo", "input": None, **nulls})
    assert answer.status_code == 202 and answer.json()["input"] is None
    bulk = http.post("/v1/jobs/bulk", json={"jobs": [{"handler": "echo", **nulls}], "run_id": None})
    assert bulk.status_code == 202 and "code" not in bulk.json()["jobs"][0]
    assert http.post("/v1/jobs", json={"handler": "echo", "nonsense": None}).status_code == 422
