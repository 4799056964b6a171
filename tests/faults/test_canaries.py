"""Effect: secrets that look like no other text, looked for in all that a server says of itself."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import httpx2
import pytest

from tests.faults.server_fixture import Document, LiveServer, ServerFixture, until

pytestmark = pytest.mark.slow

NAMES = (
    "RUNNER_TOKEN", "RUNNER_DATABASE_URL", "RUNNER_REDIS_PASSWORD", "token file", "bearer", "basic", "cookie",
    "api key", "query", "input", "metadata", "malformed",
)  # fmt: skip
#: Imported by whatever describes or runs handlers: it tells which variables that process has.
HANDLERS = """
import ctypes, json, os, sys
from pathlib import Path
from runner import handler

with Path({told!r}).open("a") as file:
    file.write(json.dumps(dict(os.environ)) + "\\n")

@handler("raises")
def raises(data: dict) -> None:
    secret = data["secret"]
    raise ValueError("it did not work") from KeyError("a cause")

@handler("crashes")
def crashes(data: dict) -> None:
    ctypes.string_at(0)

@handler("exits")
def exits(data: dict) -> None:
    sys.exit(3)

@handler("hangs")
def hangs(data: dict) -> None:
    while True:
        ctypes.PyDLL(None).usleep(10_000)

@handler("gives_what_is_no_json")
def gives_what_is_no_json(data: dict) -> object:
    return object()

@handler("wants_a_number")
def wants_a_number(data: int) -> None: ...
"""
FAILING = ("raises", "crashes", "exits", "gives_what_is_no_json")
PAGES = (
    "/metrics", "/openapi.json", "/docs", "/readyz", "/healthz", "/v1/handlers", "/v1/devices", "/v1/queues",
    "/v1/executors", "/v1/jobs?limit=1&states=queued", "/v1/nowhere",
)  # fmt: skip


def make_canaries() -> dict[str, str]:
    return {name: f"canary{uuid.uuid4().hex}" for name in NAMES}


def start(server_fixture: ServerFixture, canaries: dict[str, str]) -> tuple[LiveServer, Path]:
    """A server at log level debug that has been given secrets in every way there is."""
    told, handlers, token = (server_fixture.folder / name for name in ("environ", "leaky.py", "token"))
    handlers.write_text(HANDLERS.format(told=str(told)))
    token.write_text(canaries["token file"])
    env = {
        "RUNNER_TOKEN": canaries["RUNNER_TOKEN"],
        "RUNNER_DATABASE_URL": f"postgresql://user:{canaries['RUNNER_DATABASE_URL']}@db/jobs",
        "RUNNER_REDIS_PASSWORD": canaries["RUNNER_REDIS_PASSWORD"],
        "RUNNER_LOG_LEVEL": "debug",
    }
    server = server_fixture.start("--handlers", str(handlers), "--token-file", str(token), env=env)
    server.http.headers["Authorization"] = f"Bearer {canaries['token file']}"
    return server, told


def attempts_to_get_in(server: LiveServer, canaries: dict[str, str]) -> list[str]:
    """What is answered to credentials that are wrong, and to requests that are."""
    headers = [
        {"Authorization": f"Bearer {canaries['bearer']}"},
        {"Authorization": f"Basic {canaries['basic']}"},
        {"Cookie": f"session={canaries['cookie']}"},
        {"X-Api-Key": canaries["api key"]},
    ]
    url = f"{server.url}/v1/jobs"
    said = [httpx2.get(url, headers=each, trust_env=False) for each in headers]
    said.append(httpx2.get(f"{url}?token={canaries['query']}", trust_env=False))
    assert {answer.status_code for answer in said} == {401}
    said.append(server.http.get(f"/v1/jobs?token={canaries['query']}"))
    broken = f'{{"handler": "raises", "input": {{"a": "{canaries["malformed"]}"'
    said.append(server.http.post("/v1/jobs", content=broken, headers={"Content-Type": "application/json"}))
    assert said[-1].status_code in (400, 422)
    return [answer.text + str(answer.headers) for answer in said]


def use_tickets(server: LiveServer) -> tuple[dict[str, str], list[str]]:
    """Tickets that were given out, and what is answered to them where they open nothing."""
    jobs = [server.submit("raises", {"secret": "none"}) for _ in range(2)]
    for job_id in jobs:
        server.wait_for_end(job_id)
    asked = [{"job_id": jobs[0]}, {"job_id": jobs[1]}, {}]
    given = [server.http.post("/v1/tickets", json=body).json()["ticket"] for body in asked]
    own, of_another, _ = given
    streams = [f"{server.url}/v1/jobs/{job_id}/events" for job_id in jobs]
    read = httpx2.get(f"{streams[0]}?ticket={own}", trust_env=False)
    assert read.status_code == 200 and "event: done" in read.text
    forged = "A" + own[1:] if own[0] != "A" else "B" + own[1:]
    said = [httpx2.get(f"{streams[0]}?ticket={each}", trust_env=False) for each in (of_another, forged)]
    said.append(httpx2.get(f"{server.url}/v1/jobs?ticket={own}", trust_env=False))
    assert {answer.status_code for answer in said} == {401}
    said.append(server.http.get(f"/v1/jobs?ticket={own}"))
    assert said[-1].status_code == 422
    tickets = {f"ticket {number}": ticket for number, ticket in enumerate([*given, forged])}
    return tickets, [read.text, *(answer.text + str(answer.headers) for answer in said)]


def fail_jobs(server: LiveServer, canaries: dict[str, str]) -> tuple[list[str], list[str]]:
    """Ids of jobs that ended badly with secrets in their inputs, and what is told of their ends."""
    data = {"secret": canaries["input"]}
    ids = [server.submit(name, data, metadata={"note": canaries["metadata"]}) for name in FAILING]
    ids.append(server.submit("hangs", data, timeout_s=0.3))
    told = []
    for job_id in ids:
        job = server.wait_for_end(job_id)
        assert job["state"] == "failed", job
        assert job["input"] == data, "a canary is where it belongs"
        told += [json.dumps(job["error"]), json.dumps(server.attempts(job_id))]
        told += [json.dumps(_without_document(event.data)) for event in server.events(job_id)]
    return ids, told


def _without_document(data: Document) -> Document:
    """An event without what the job was given, if it holds the job."""
    return {key: value for key, value in data.items() if key not in ("input", "metadata")}


def command_lines(server_fixture: ServerFixture) -> list[str]:
    found = [Path(f"/proc/{pid}/cmdline") for pid in server_fixture.processes()]
    return [path.read_bytes().decode("utf-8", "replace") for path in found if path.exists()]


def hits(texts: list[str], canaries: dict[str, str]) -> list[tuple[str, str]]:
    return [(name, text[:300]) for name, canary in canaries.items() for text in texts if canary in text]


def test_no_secret_shows_in_anything_that_a_server_says(server_fixture: ServerFixture) -> None:
    canaries = make_canaries()
    assert len(canaries) == 12
    server, told = start(server_fixture, canaries)
    until(lambda: "hangs" in server.http.get("/v1/handlers").text, "the handlers are described")
    texts = attempts_to_get_in(server, canaries)
    tickets, answers = use_tickets(server)
    canaries |= tickets
    texts += answers
    _, ends = fail_jobs(server, canaries)
    texts += ends + [server.http.get(page).text for page in PAGES]
    lines = command_lines(server_fixture)
    assert len(lines) >= 4
    server.process.terminate()
    assert server.exit_code(within_s=5) == 0
    assert hits([*texts, *lines, server.log.read_text()], canaries) == []
    environments = [json.loads(line) for line in told.read_text().splitlines()]
    assert len(environments) >= 2
    assert not [name for each in environments for name in each if name.startswith("RUNNER_")]
    assert hits([json.dumps(each) for each in environments], canaries) == []


def test_a_setting_that_is_refused_is_not_repeated(server_fixture: ServerFixture) -> None:
    canary = make_canaries()["RUNNER_DATABASE_URL"]
    for env in (
        {"RUNNER_STORE": f"postgresql://user:{canary}@db/jobs"},
        {"RUNNER_LIMITS": canary},
        {"RUNNER_EXECUTORS__ENV__KEY": canary, "RUNNER_FRONTS": "-1"},
        {"RUNNER_TOKEN": f"{canary}\n {canary}", "RUNNER_FRONTS": "-1"},
    ):
        process, ready, log = server_fixture.spawn(env=env)
        try:
            assert process.wait(5) == 2, log.read_text()
        finally:
            process.kill()
            process.wait()
            os.close(ready)
        assert canary not in log.read_text(), (env, log.read_text())
