"""Effect: every answer of a running server is as its OpenAPI document says, status by status.

Each case is one request with real data. A route of the document without a case fails, and so does an answer
whose status or media type the document does not name, or whose JSON does not fit. A field that the document
does not name is a fault too, although clients have to take it: later versions may add some.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import pytest

from runner.client.events import SseParser
from runner.testing import Server as Process
from tests.faults.server_fixture import LiveServer
from tests.runner.coordinator.server_client import connect_to, post, wait_for_reason, wait_until_running

Json = dict[str, Any]
HANDLERS = Path(__file__).with_name("serve_handlers.py")
BROKEN = "raise OSError('no such library')\n"
#: An id of the right form that no job has.
MISSING = "0" * 36
#: Models whose further fields depend on the case: what an error is about, what keeps a job from its start.
OPEN = {"Problem", "Explanation"}
#: Path of a handler's own submit route, which the document has for each handler.
TYPED_PATH = re.compile(r"/v1/handlers/[^{/]+/jobs")
PREFER_WAIT = {"Prefer": "wait=5"}


class Case(NamedTuple):
    """One request: method and URL, in which `{word}` is the id of a job of `jobs`; the status expected."""

    request: str
    status: int
    body: object = None
    headers: dict[str, str] | None = None
    content: bytes | None = None


JOB_STATES = ("succeeded", "failed", "cancelled", "scheduled", "running", "waiting", "paused", "retrying")
OTHER_JOBS = ("large", "file", "short", "gpu", "stream")
LINE = b'{"handler":"echo","input":1}\n'
READS = [
    *(Case(f"GET /v1/jobs/{{{word}}}", 200) for word in (*JOB_STATES, *OTHER_JOBS)),
    *(Case(f"GET /v1/jobs/{{{word}}}/explain", 200) for word in (*JOB_STATES, *OTHER_JOBS)),
    *(Case(f"GET /v1/jobs/{{{word}}}/attempts", 200) for word in (*JOB_STATES, *OTHER_JOBS)),
    *(Case(f"GET /v1/jobs/{MISSING}{below}", 404) for below in ("", "/explain", "/attempts", "/output")),
    Case(f"GET /v1/jobs/{MISSING}/events", 404),
    Case(f"GET /v1/jobs/{MISSING}/files/x", 404),
    Case("GET /v1/jobs/{succeeded}", 200, headers=PREFER_WAIT),
    Case("GET /v1/jobs/{succeeded}?nonsense=1", 422),
    Case("GET /v1/jobs", 200),
    Case("GET /v1/jobs?limit=2", 200),
    Case("GET /v1/jobs?state=failed&order=asc", 200),
    Case("GET /v1/jobs?state=nonsense", 422),
    Case("GET /v1/jobs?cursor=nonsense", 422),
    Case("GET /openapi.json?version=3.2", 200),
    Case("GET /openapi.json?version=9", 422),
    Case("GET /v1/jobs/{succeeded}/output", 200),
    Case("GET /v1/jobs/{large}/output", 200),
    Case("GET /v1/jobs/{file}/output", 303),
    Case("GET /v1/jobs/{running}/output", 409),
    Case("GET /v1/jobs/{failed}/output", 404),
    Case("GET /v1/jobs/{succeeded}/events", 200),
    Case("GET /v1/jobs/{failed}/events", 200),
    Case("GET /v1/jobs/{succeeded}/events", 204, headers={"Last-Event-ID": "999"}),
    Case("GET /v1/jobs/{file}/files", 200),
    Case(f"GET /v1/jobs/{MISSING}/files", 404),
    Case("GET /v1/jobs/{file}/files/a.png", 200),
    Case("GET /v1/jobs/{file}/files/a.png", 206, headers={"Range": "bytes=0-9"}),
    Case("GET /v1/jobs/{file}/files/a.png", 416, headers={"Range": "bytes=1000-"}),
    Case("GET /v1/jobs/{file}/files/b.png", 404),
    Case("GET /v1/queues", 200),
    Case("GET /v1/queues/default", 200),
    Case("GET /v1/queues/held", 200),
    Case("GET /v1/queues/nonsense", 404),
    Case("GET /v1/handlers", 200),
    Case("GET /v1/handlers/models", 200),
    Case("GET /v1/handlers/echo", 200),
    Case("GET /v1/handlers/nonsense", 404),
    Case("GET /v1/devices", 200),
    Case("GET /v1/workers", 200),
    Case("GET /v1/stats", 200),
    Case("GET /v1/stats?nonsense=1", 422),
    Case("GET /healthz", 200),
    Case("GET /readyz", 200),
    Case("GET /metrics", 200),
    Case("GET /openapi.json", 200),
    Case("GET /docs", 200),
    Case("GET /v1/queues", 421, headers={"Host": "example.com"}),
    Case("GET /v1/queues", 403, headers={"Origin": "https://example.com"}),
]
WRITES = [
    Case("POST /v1/jobs", 202, {"handler": "echo", "delay_s": 60, "tags": ["a"], "metadata": {"b": 1}}),
    Case("POST /v1/jobs", 200, {"handler": "echo", "input": {"a": 1}}, PREFER_WAIT),
    Case("POST /v1/jobs", 200, {"handler": "never", "input": {}}, PREFER_WAIT),
    Case("POST /v1/jobs", 404, {"handler": "nonsense"}),
    Case("POST /v1/jobs", 422, {}),
    Case("POST /v1/jobs", 422, {"handler": "even", "input": {"number": "x"}}),
    Case("POST /v1/jobs", 422, {"handler": "small", "vram": "4TiB"}),
    Case("POST /v1/jobs", 422, content=b"{"),
    Case("POST /v1/jobs", 415, content=b"{}", headers={"Content-Type": "text/plain"}),
    Case("POST /v1/jobs", 413, {"handler": "echo", "input": "x" * (17 << 20)}),
    Case("POST /v1/jobs/bulk", 202, {"jobs": [{"handler": "echo"}, {"handler": "nonsense"}, {}]}),
    Case("POST /v1/jobs/bulk", 202, content=LINE * 2, headers={"Content-Type": "application/x-ndjson"}),
    Case("POST /v1/jobs/bulk", 422, {}),
    Case("POST /v1/jobs/bulk", 422, content=b"{"),
    Case("POST /v1/handlers/even/jobs", 202, {"input": {"number": 2}, "delay_s": 60}),
    Case("POST /v1/handlers/even/jobs", 200, {"input": {"number": 2}}, PREFER_WAIT),
    Case("POST /v1/handlers/even/jobs", 422, {"input": {"number": "x"}}),
    Case("POST /v1/handlers/nonsense/jobs", 404, {}),
    Case("POST /v1/jobs/{doomed}/cancel", 200, {"reason": "enough"}),
    Case("POST /v1/jobs/{doomed}/retry", 202),
    Case("DELETE /v1/jobs/{doomed}", 204),
    Case("POST /v1/jobs/{running}/retry", 409),
    Case("DELETE /v1/jobs/{running}", 409),
    Case("POST /v1/jobs/{running}/cancel", 202),
    Case("POST /v1/jobs/{succeeded}/cancel", 409),
    Case("POST /v1/jobs/{failed}/cancel", 422, {"nonsense": 1}),
    Case(f"POST /v1/jobs/{MISSING}/cancel", 404),
    Case(f"POST /v1/jobs/{MISSING}/retry", 404),
    Case(f"DELETE /v1/jobs/{MISSING}", 404),
    Case("POST /v1/tickets", 201),
    Case("POST /v1/tickets", 201, {"job_id": "{succeeded}"}),
    Case("POST /v1/tickets", 404, {"job_id": MISSING}),
    Case("POST /v1/tickets", 422, {"job_id": 7}),
    Case("PUT /v1/queues/default", 200, {"paused": True}),
    Case("PUT /v1/queues/default", 422, {"paused": 1}),
    Case("PUT /v1/queues/default", 422, {"paused": True, "rate": 1}),
    Case("POST /v1/queues/default/pause", 200),
    Case("POST /v1/queues/nope/pause", 404),
    Case("POST /v1/queues/default/resume", 200),
    Case("POST /v1/queues/a%20b/pause", 404),
    Case("POST /v1/queues/a%20b/resume", 404),
    Case("POST /v1/handlers/models/load", 200, {"model": "a"}, {"Prefer": "wait=10"}),
    Case("GET /v1/handlers/models", 200),
    Case("GET /v1/devices", 200),
    Case("POST /v1/handlers/medium/load", 202),
    Case("POST /v1/handlers/bad_load/load", 409, headers={"Prefer": "wait=10"}),
    Case("GET /v1/handlers/bad_load", 200),
    Case("POST /v1/handlers/nonsense/load", 404),
    Case("POST /v1/handlers/models/load", 422, {"model": 7}),
    Case("POST /v1/handlers/models/unload", 202, {"model": "a"}),
    Case("POST /v1/handlers/echo/unload", 200, {"device": "sim1"}),
    Case("POST /v1/handlers/nonsense/unload", 404),
    Case("POST /v1/devices/sim1/drain", 200),
    Case("POST /v1/devices/sim1/resume", 200),
    Case("PATCH /v1/devices/sim1", 200, {"max_executors": 2}),
    Case("PATCH /v1/devices/sim1", 200, {"max_executors": None}),
    Case("PATCH /v1/devices/sim1", 422, {"max_executors": 0}),
    Case("POST /v1/devices/nonsense/drain", 404),
    Case("POST /v1/devices/nonsense/resume", 404),
    Case("PATCH /v1/devices/nonsense", 404, {"max_executors": 2}),
    Case("GET /v1/devices", 200),
    Case("GET /v1/stats", 200),
]
#: These come last: they replace the handlers.
RELOADS = [
    Case("POST /v1/handlers/reload", 200),
    Case("GET /v1/handlers", 200),
    Case("GET /v1/handlers/flawed", 200),
    Case("POST /v1/jobs", 422, {"handler": "flawed"}),
]
CASES = [*READS, *WRITES, *RELOADS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schema")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    """A server of these tests alone: they drain its devices and break one of its handlers."""
    extra = folder / "extra.py"
    extra.write_text("from runner import handler\n\n\n@handler('flawed')\ndef flawed(data): ...\n")
    with Process([HANDLERS, extra], gpus="sim:2x24GiB", grace_s="0s") as process:
        api = connect_to(process)
        yield api
        api.http.close()


@pytest.fixture(scope="module")
def document(server: LiveServer) -> Json:
    """The published document, before anything has changed the handlers."""
    found: Json = server.http.get("/openapi.json").json()
    for name, component in found["components"]["schemas"].items():
        if component.get("additionalProperties") is True and name not in OPEN:
            component["additionalProperties"] = False
    return found


@pytest.fixture(scope="module")
def jobs(server: LiveServer, folder: Path) -> Iterator[dict[str, str]]:
    """Jobs in all states, by the word that cases have for them."""
    gate = folder / "gate"
    assert server.http.put("/v1/queues/held", json={"paused": True}).status_code == 200
    ids = {
        "succeeded": server.submit("echo", {"a": 1}, tags=["red"], metadata={"who": "ann"}, tenant="team"),
        "failed": server.submit("never"),
        "cancelled": server.submit("echo", delay_s=60),
        "scheduled": server.submit("echo", run_at="2030-01-01T00:00:00Z"),
        "running": server.submit("one", {"gate": str(gate)}),
        "waiting": server.submit("one", {"gate": str(gate)}),
        "paused": server.submit("echo", queue="held"),
        "retrying": server.submit("fails", {"until": 9}, retries=3, backoff=[60]),
        "large": server.submit("result", {"kind": "100000"}),
        "file": server.submit("files", {"names": ["a.png"]}),
        "short": server.submit("echo", queue="held", queue_timeout_s=0.1),
        "gpu": server.submit("pair", vram="4GiB", timeout_s="5m", priority="high"),
        "stream": server.submit("talk", {"n": 3}),
        "doomed": server.submit("echo", delay_s=60),
    }
    post(server, f"/jobs/{ids['cancelled']}/cancel", status=200)
    for word in ("succeeded", "failed", "cancelled", "large", "file", "short", "gpu", "stream"):
        server.wait_for_end(ids[word])
    wait_until_running(server, ids["running"])
    wait_for_reason(server, ids["retrying"], "retry_backoff")
    yield ids
    gate.touch()


def _template(document: Json, method: str, url: str) -> str:
    """Return the document's path for a request; a fixed one goes before one with parameters."""
    path = url.partition("?")[0]
    templates = sorted(document["paths"], key=lambda template: template.count("{"))
    for template in templates:
        pattern = re.sub(r"{\w+}", "[^/]+", re.sub(r"[.]", r"\\.", template))
        if method.lower() in document["paths"][template] and re.fullmatch(pattern, path):
            return str(template)
    raise AssertionError(f"the document has no route for {method} {path}")


def _errors(document: Json, schema: Json, value: object) -> list[str]:
    whole = {**schema, "components": document["components"]}
    validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
    return [
        f"{'/'.join(map(str, each.instance_path))}: {each.message}" for each in validator.iter_errors(value)
    ]


def test_every_route_has_a_case(document: Json) -> None:
    routes = {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if not TYPED_PATH.fullmatch(path)
    }
    covered = set()
    for case in CASES:
        method, url = case.request.split(" ")
        covered.add((method, _template(document, method, url.format_map(_Words()))))
    assert routes - covered == set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.request} {case.status}")
def test_an_answer_is_as_described(
    server: LiveServer, document: Json, jobs: dict[str, str], folder: Path, case: Case
) -> None:
    if case is RELOADS[0]:
        (folder / "extra.py").write_text(BROKEN)
    method, url = case.request.split(" ")
    url = url.format_map(jobs)
    body = case.body
    if isinstance(body, dict) and isinstance(body.get("job_id"), str):
        body = {"job_id": body["job_id"].format_map(jobs)}
    headers = case.headers or {}
    if case.content is not None:
        headers = {"Content-Type": "application/json"} | headers
    answer = server.http.request(method, url, json=body, content=case.content, headers=headers)
    assert answer.status_code == case.status, answer.text
    operation = document["paths"][_template(document, method, url)][method.lower()]
    described = operation["responses"].get(str(case.status))
    assert described is not None, f"{case.status} is not described"
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    content = described.get("content", {})
    assert media_type in content or "*/*" in content or (not content and not answer.content)
    if media_type.endswith("json"):
        assert _errors(document, content[media_type]["schema"], answer.json()) == []


@pytest.mark.parametrize("word", ["succeeded", "failed", "cancelled", "large", "file", "stream", "gpu"])
def test_an_event_is_as_described(
    server: LiveServer, document: Json, jobs: dict[str, str], word: str
) -> None:
    newer = server.http.get("/openapi.json?version=3.2").json()
    media = newer["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"]
    schema = media["text/event-stream"]["itemSchema"]
    text = server.http.get(f"/v1/jobs/{jobs[word]}/events").text
    frames = [*SseParser().feed(text.encode())]
    assert {frames[0].name, frames[-1].name} == {"snapshot", "done"}
    for frame in frames:
        item = {"event": frame.name, "data": frame.data} | ({"id": frame.id} if frame.id else {})
        assert _errors(document, schema, item) == []
        described = next(
            one["properties"]["data"]["contentSchema"]
            for one in schema["oneOf"]
            if one["properties"]["event"]["const"] == frame.name
        )
        assert _errors(document, described, json.loads(frame.data)) == [], frame


class _Words(dict[str, str]):
    """Any word in place of a job's id."""

    def __missing__(self, word: str) -> str:
        return MISSING
