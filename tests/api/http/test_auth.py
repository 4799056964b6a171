"""Pure and over HTTP: strangers are refused."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import httpx2
import pytest

from api.http.auth import Access
from api.http.tickets import Tickets
from runner.errors import RunnerError, Unauthorized, WrongHost, WrongOrigin
from tests.api.fake_coordinator import RunningFront, running_front

TICKETS = Tickets(b"sealed with this")
NOW = 1_800_000_000.0


def access(**settings: Any) -> Access:
    given: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 8484,
        "allow_hosts": ["gpu.lan", "box:9000", "[fd00::1]"],
        "allow_origins": ["https://app.example"],
        "token_sha256": b"",
        "tickets": TICKETS,
        "streams": [re.compile("/v1/jobs/(?P<job_id>[^/]+)/events"), re.compile("/v1/events")],
        "now": lambda: NOW,
    }
    return Access(**(given | settings))


def scope(path: str = "/v1/jobs", method: str = "GET", **headers: str) -> dict[str, Any]:
    named = {"host": "localhost:8484"} | {name.replace("_", "-"): value for name, value in headers.items()}
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
    path, _, query = path.partition("?")
    return {"method": method, "path": path, "query_string": query.encode("latin-1"), "headers": pairs}


@pytest.mark.parametrize(
    "host",
    ["localhost:8484", "127.0.0.1:8484", "[::1]:8484", "LOCALHOST:8484", "gpu.lan", "gpu.lan:443", "box:9000",
     "[fd00::1]:8484", "[fd00::1]"],
)  # fmt: skip
def test_own_names_pass(host: str) -> None:
    assert access().check(scope(host=host)) == []


FOREIGN_HOSTS = [
    "evil.example", "evil.example:8484", "localhost", "localhost:80", "localhost:8485", "127.0.0.1",
    "localhost.evil.example:8484", "127.0.0.1.evil.example:8484", "0.0.0.0:8484", "127.0.0.2:8484",
    "[::]:8484", "[::ffff:127.0.0.1]:8484", "2130706433:8484", "0x7f.1:8484", "127.1:8484",
    "localhost.:8484", "localhost:8484@evil.example", "evil.example#localhost:8484", "box:9001", "gpu.lan.",
    "gpu.lan.evil.example", "",
]  # fmt: skip


@pytest.mark.parametrize("host", ["localhost", "evil.example", ""])
def test_a_program_may_send_any_host_over_the_unix_socket(host: str) -> None:
    over_unix = {"server": ("/run/runner.sock", None)}
    assert access().check(scope(host=host) | over_unix) == []
    with pytest.raises(WrongHost):
        access().check(scope(host=host) | {"server": ("127.0.0.1", 8484)})


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"host": "evil.example", "origin": "http://evil.example"}, WrongHost),
        ({"host": "evil.example", "sec_fetch_site": "same-origin"}, WrongHost),
        ({"host": "gpu.lan", "origin": "http://evil.example"}, WrongOrigin),
        ({"host": "gpu.lan", "sec_fetch_site": "cross-site"}, WrongOrigin),
    ],
)
def test_a_browser_behind_a_proxy_is_checked_over_the_unix_socket_too(
    headers: dict[str, str], error: type[RunnerError]
) -> None:
    over_unix = {"server": ("/run/runner.sock", None)}
    with pytest.raises(error):
        access().check(scope(**headers) | over_unix)
    assert access().check(scope(host="gpu.lan", origin="http://gpu.lan") | over_unix) == []


def test_the_token_counts_over_the_unix_socket_too() -> None:
    over_unix = {"server": ("/run/runner.sock", None)}
    closed = access(token_sha256=hashlib.sha256(b"hush").digest())
    with pytest.raises(Unauthorized):
        closed.check(scope(host="localhost") | over_unix)
    assert closed.check(scope(host="localhost", authorization="Bearer hush") | over_unix) == []


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_foreign_hosts_are_refused(host: str) -> None:
    with pytest.raises(WrongHost):
        access().check(scope(host=host))


def test_two_hosts_are_none() -> None:
    two = scope()
    two["headers"].append((b"host", b"localhost:8484"))
    with pytest.raises(WrongHost):
        access().check(two)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": "https://app.example.evil"},
        {"sec_fetch_site": "cross-site"},
        {"origin": "http://localhost:8484", "sec_fetch_site": "cross-site"},
    ],
)
def test_foreign_pages_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(WrongOrigin):
        access().check(scope(**headers))


def test_allowed_pages_get_cors_headers_and_our_own_do_not() -> None:
    allowed = access().check(scope(origin="https://app.example", sec_fetch_site="cross-site"))
    assert (b"access-control-allow-origin", b"https://app.example") in allowed
    assert access().check(scope(origin="http://127.0.0.1:8484", sec_fetch_site="same-origin")) == []


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer nope", "Basic secret", "secret"])
def test_a_wrong_token_is_refused(authorization: str | None) -> None:
    rules = access(token_sha256=hashlib.sha256(b"secret").digest())
    headers = {} if authorization is None else {"authorization": authorization}
    with pytest.raises(Unauthorized):
        rules.check(scope(**headers))
    assert rules.check(scope("/healthz", **headers)) == []


def test_the_token_passes_whatever_the_case_of_its_scheme() -> None:
    rules = access(token_sha256=hashlib.sha256(b"secret").digest())
    assert rules.check(scope(authorization="bearer secret")) == []


def test_a_ticket_opens_streams_and_nothing_else() -> None:
    rules = access(token_sha256=hashlib.sha256(b"secret").digest())
    own, whole = TICKETS.issue(int(NOW) + 1, "a"), TICKETS.issue(int(NOW) + 1, None)
    for path in (f"/v1/jobs/a/events?ticket={own}", f"/v1/jobs/a/events?after=3&ticket={whole}"):
        assert rules.check(scope(path)) == []
    assert rules.check(scope(f"/v1/events?ticket={whole}")) == []
    for method, path in (
        ("GET", f"/v1/jobs/a?ticket={whole}"),
        ("GET", f"/v1/tickets?ticket={whole}"),
        ("POST", f"/v1/jobs/a/events?ticket={whole}"),
        ("GET", f"/v1/jobs/b/events?ticket={own}"),
        ("GET", f"/v1/events?ticket={own}"),
        ("GET", "/v1/jobs/a/events?ticket="),
        ("GET", "/v1/jobs/a/events?ticket=%ff"),
        ("GET", f"/v1/jobs/a/events?ticket=x&ticket={own}"),
    ):
        with pytest.raises(Unauthorized):
            rules.check(scope(path, method))


def test_a_wrong_token_is_refused_whatever_the_ticket() -> None:
    rules = access(token_sha256=hashlib.sha256(b"secret").digest())
    ticket = TICKETS.issue(int(NOW) + 1, None)
    with pytest.raises(Unauthorized):
        rules.check(scope(f"/v1/events?ticket={ticket}", authorization="Bearer wrong"))


def test_no_rule_lets_a_strange_byte_through_as_a_crash() -> None:
    for value in ("\xff", "[", "]:", ":", "a:b:c:1"):
        with pytest.raises(RunnerError):
            access().check(scope(host=value))


@pytest.mark.parametrize("path", ["/v1/jobs", "/healthz", "/openapi.json", "/docs", "/metrics", "/none"])
def test_every_route_checks_host_and_origin(http: httpx2.Client, path: str) -> None:
    strange = http.get(path, headers={"host": "evil.example"})
    assert (strange.status_code, strange.json()["code"]) == (421, "wrong_host")
    foreign = http.get(path, headers={"origin": "https://evil.example"})
    assert (foreign.status_code, foreign.json()["code"]) == (403, "wrong_origin")
    crossing = http.get(path, headers={"sec-fetch-site": "cross-site"})
    assert (crossing.status_code, crossing.json()["code"]) == (403, "wrong_origin")


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "application/json; charset=latin-1",
    ],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/bulk", "/v1/handlers/echo/jobs"])
def test_forms_and_texts_are_refused(http: httpx2.Client, path: str, content_type: str) -> None:
    answer = http.post(path, content=b'{"handler":"echo"}', headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_an_empty_form_pauses_no_queue(http: httpx2.Client) -> None:
    answer = http.post(
        "/v1/queues/default/pause", headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 415


def test_a_stream_is_refused_to_a_foreign_page(http: httpx2.Client, front: RunningFront) -> None:
    job = front.fake.new()
    answer = http.get(f"/v1/jobs/{job.id}/events", headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    assert job.id not in front.fake.watched


def test_a_token_guards_all_but_life_and_cors_comes_with_the_refusal() -> None:
    with (
        running_front(token="secret", allow_origins=["https://app.example"]) as front,
        httpx2.Client(base_url=front.url) as http,
    ):
        assert http.get("/healthz").status_code == 200
        refused = http.get("/v1/jobs", headers={"origin": "https://app.example"})
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert refused.headers["access-control-allow-origin"] == "https://app.example"
        assert http.get("/v1/jobs", headers={"authorization": "Bearer secret"}).status_code == 200
        asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
        preflight = http.options("/v1/jobs", headers=asked)
        assert preflight.status_code == 204
        allowed = preflight.headers["access-control-allow-methods"].split(", ")
        assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= {*allowed}
        assert http.options("/v1/jobs", headers=asked | {"origin": "https://evil"}).status_code == 403
