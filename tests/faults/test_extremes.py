"""Effect: the extremes of every field of the API and of every call of a handler."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.extreme_handlers import CALLS
from tests.faults.extremes import TEXTS, json_texts, python_values, resolve
from tests.faults.server_fixture import Document, LiveServer, ServerFixture, until

HANDLERS = Path(__file__).with_name("extreme_handlers.py")
ERROR_CODES = {
    "handler_error", "permanent_error", "result_too_large", "result_not_serialisable", "timeout",
    "invalid_input",
}  # fmt: skip
#: Texts that a header takes; a line feed would end it.
HEADERS = [text for text in TEXTS if text.isascii() and text.isprintable()]
#: The client that sends them takes URLs of 65,536 characters; the server refuses them from 16 KiB on.
TEXT_CHARS_MAX, QUERY_CHARS_MAX = 5_000, 60_000
#: A start of these would block the requests that come after.
NOT_SENT = {("post", "/v1/devices/{name}/drain")}


class Attacker:
    """Sends extremes to one server, and knows which jobs it has accepted."""

    def __init__(self, fixture: ServerFixture) -> None:
        self.fixture = fixture
        self.server = self._start()
        self.document: Document = self.server.http.get("/openapi.json").json()
        self.known = self.server.submit("plain", 1)
        self.server.wait_for_end(self.known)

    def _start(self) -> LiveServer:
        return self.fixture.start("--handlers", str(HANDLERS), env={"RUNNER_LIMITS__QUEUES": "50"})

    def operations(self) -> list[tuple[str, str]]:
        """The method and path of each operation, sorted."""
        return sorted(
            (method, path)
            for path, methods in self.document["paths"].items()
            for method in methods
            if (method, path) not in NOT_SENT
        )

    def send(self, method: str, url: str, headers: dict[str, str], body: str | None) -> None:
        """Send a request; its answer is a success or a problem of the client, and hides the data folder."""
        if body is not None:
            headers = {"Content-Type": "application/json", **headers}
        raw = None if body is None else body.encode()
        with self.server.http.stream(method.upper(), url, headers=headers, content=raw) as answer:
            said = (method, url[:300], headers, (body or "")[:300], answer.status_code)
            assert answer.status_code < 500, (*said, answer.read()[:500])
            if "text/event-stream" in answer.headers.get("content-type", ""):
                # The stream of a job that waits does not end.
                text = next(answer.iter_text(), "")
            else:
                text = answer.read().decode()
            assert str(self.fixture.data) not in text, said
            if answer.status_code >= 400:
                assert json.loads(text)["code"], said

    def check(self, step: int) -> None:
        """The server lists all jobs, and shows, cancels and deletes each `step`-th; so after a restart."""
        self._read_everything(step)
        assert self.server.http.post("/v1/devices/cpu/resume").status_code == 200
        self.server.signal(signal.SIGTERM)
        assert self.server.exit_code(within_s=20) == 0
        self.server = self._start()
        self._read_everything(step)
        chosen = self.server.jobs()[::step]
        for job in chosen:
            url = f"/v1/jobs/{job['id']}"
            assert self.server.http.post(f"{url}/cancel").status_code in (200, 202, 409), job
        until(lambda: not self.server.jobs(state="running"), "nothing runs", within_s=30)
        for job in chosen:
            assert self.server.http.delete(f"/v1/jobs/{job['id']}").status_code == 204, job
        assert not {job["id"] for job in chosen} & {job["id"] for job in self.server.jobs()}
        self.known = self.server.submit("plain", 1)
        assert self.server.wait_for_end(self.known)["state"] == "succeeded"

    def _read_everything(self, step: int) -> None:
        for path in (
            "/v1/queues",
            "/v1/handlers",
            "/v1/devices",
            "/v1/workers",
            "/v1/stats",
            "/metrics",
            "/readyz",
        ):
            answer = self.server.http.get(path)
            assert answer.status_code == 200 and str(self.fixture.data) not in answer.text, path
        for job in self.server.jobs()[::step]:
            for part in ("", "/attempts", "/explain"):
                answer = self.server.http.get(f"/v1/jobs/{job['id']}{part}")
                assert answer.status_code == 200, (job, answer.text)


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacker]:
    fixture = ServerFixture(tmp_path_factory.mktemp("extremes"))
    yield Attacker(fixture)
    fixture.close()


def _attack(attacker: Attacker, data: st.DataObject) -> None:
    """Send one operation with extremes in some of its fields."""
    method, path = data.draw(st.sampled_from(attacker.operations()), "operation")
    operation = attacker.document["paths"][path][method]
    query: list[str] = []
    headers: dict[str, str] = {}
    url = path
    parameters = [(one["in"], one["name"], one.get("schema", {})) for one in operation.get("parameters", ())]
    if path == "/v1/jobs" and method == "get":
        parameters += [
            ("query", f"input.{name}", {}) for name in ("a", "9" * 10, "a.0", quote("a\0b"), "x" * 150)
        ]
    for place, name, schema in parameters:
        texts = _texts(schema, attacker.document)
        if place == "path":
            known = {"job_id": attacker.known, "name": "plain", "file": "x"}.get(name, "x")
            value = data.draw(st.sampled_from([known, known, *TEXTS]), name)
            url = url.replace(f"{{{name}}}", quote(value, safe=""))
        elif not data.draw(st.booleans(), f"send {name}?"):
            continue
        elif place == "header":
            headers[name] = data.draw(st.sampled_from(HEADERS), name).strip()
        else:
            repeat = data.draw(st.sampled_from([1, 1, 2, 25]), "times")
            value = quote(data.draw(st.sampled_from(texts), name), safe="")
            query += [f"{quote(name, safe='.%')}={value}"] * repeat
    while len("&".join(query)) > QUERY_CHARS_MAX:
        query.pop()
    body = _body(attacker, operation, data) if "requestBody" in operation else None
    attacker.send(method, url + ("?" + "&".join(query) if query else ""), headers, body)


def _texts(schema: Document, document: Document) -> list[str]:
    """Return the texts of a parameter: JSON strings without their quotes."""
    found = []
    for text in json_texts(schema, document):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        plain = value if isinstance(value, str) else text
        found.append(plain.encode("utf-8", "replace").decode())
    return [text for text in found if len(text) <= TEXT_CHARS_MAX]


def _body(attacker: Attacker, operation: Document, data: st.DataObject) -> str:
    """Return a body: valid but for a few fields, or none at all."""
    schema = resolve(operation["requestBody"]["content"]["application/json"]["schema"], attacker.document)
    fields = {"handler": '"plain"'} if "handler" in schema.get("required", ()) else {}
    names = sorted(schema.get("properties", {}))
    for name in data.draw(st.lists(st.sampled_from(names), max_size=3, unique=True), "fields"):
        fields[name] = data.draw(
            st.sampled_from(json_texts(schema["properties"][name], attacker.document)), name
        )
    if "jobs" in names and "jobs" not in fields:
        job = attacker.document["components"]["schemas"]["JobRequest"]["properties"]
        name = data.draw(st.sampled_from(sorted(job)), "field of a job")
        value = data.draw(st.sampled_from(json_texts(job[name], attacker.document)), name)
        fields["jobs"] = f'[{{"handler":"plain",{json.dumps(name)}:{value}}}]'
    members = ",".join(f"{json.dumps(name)}:{value}" for name, value in fields.items())
    return f"{{{members}}}"


RELAXED = settings(deadline=None, suppress_health_check=list(HealthCheck))


@settings(RELAXED, max_examples=200)
@given(data=st.data())
def test_no_extreme_of_a_request_is_answered_by_a_5xx(attacker: Attacker, data: st.DataObject) -> None:
    _attack(attacker, data)


@pytest.mark.slow
def test_every_extreme_of_a_submission_is_refused_or_harmless(attacker: Attacker) -> None:
    """Each field of a job, each extreme once."""
    properties = attacker.document["components"]["schemas"]["JobRequest"]["properties"]
    for name, schema in properties.items():
        head = "" if name == "handler" else '"handler":"plain",'
        for value in dict.fromkeys(json_texts(schema, attacker.document)):
            attacker.send("post", "/v1/jobs", {}, f"{{{head}{json.dumps(name)}:{value}}}")


@pytest.mark.slow
def test_every_extreme_of_a_filter_is_refused_or_harmless(attacker: Attacker) -> None:
    parameters = attacker.document["paths"]["/v1/jobs"]["get"]["parameters"]
    named = [(one["name"], one["schema"]) for one in parameters if one["in"] == "query"]
    for name, schema in [*named, ("input.a", {}), ("input.a.1", {})]:
        for value in dict.fromkeys(_texts(schema, attacker.document)):
            attacker.send("get", f"/v1/jobs?{name}={quote(value, safe='')}", {}, None)
    for text in TEXTS:
        attacker.send("get", f"/v1/jobs?input.{quote(text, safe='')}=1", {}, None)


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_every_extreme_of_a_handler_ends_by_a_code(attacker: Attacker, step: int) -> None:
    """Each call of the context with every `step`-th extreme; the executor survives them all."""
    queue = f"extremes-{step}"
    inputs: list[Document] = [
        {"call": call, "index": index}
        for first, call in enumerate(CALLS)
        for index in range(first % step, len(python_values()), step)
    ]
    ids = attacker.server.submit_many("extremes", inputs, queue=queue)
    until(lambda: _settled(attacker.server, queue, len(ids)), "all ended or wait for a retry", within_s=60)
    for job in attacker.server.jobs(queue=queue):
        if job["state"] == "queued":
            assert job["reason"] == "retry_backoff", job
        elif job["state"] != "succeeded":
            assert job["error"]["code"] in ERROR_CODES, job


def _settled(server: LiveServer, name: str, count: int) -> bool:
    queue = server.http.get(f"/v1/queues/{name}").json()
    ended = sum(queue["counts"][state] for state in ("succeeded", "failed", "cancelled"))
    return bool(ended + queue["reasons"].get("retry_backoff", 0) == count)


@pytest.mark.slow
def test_after_all_extremes_the_server_works_also_restarted(attacker: Attacker) -> None:
    attacker.check(step=20)


@pytest.mark.slow
@pytest.mark.timeout(300)
@settings(RELAXED, max_examples=2_000)
@given(data=st.data())
def test_no_extreme_of_a_request_is_answered_by_a_5xx_at_length(
    attacker: Attacker, data: st.DataObject
) -> None:
    _attack(attacker, data)


@pytest.mark.slow
def test_after_many_extremes_the_server_works_also_restarted(attacker: Attacker) -> None:
    attacker.check(step=1)
