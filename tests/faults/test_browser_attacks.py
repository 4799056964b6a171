"""Effect: what a web page that the user visits could send to a server on loopback."""

from __future__ import annotations

import http.client
import json

import pytest

from tests.faults.server_fixture import LiveServer, ServerFixture, until

pytestmark = pytest.mark.slow

BODY = json.dumps({"handler": "echo", "input": {}})
FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:{port}",
    "127.0.0.1.evil.example:{port}",
    "localhost.evil.example:{port}",
    "0.0.0.0:{port}",
    "0:{port}",
    "127.0.0.1:1",
    "127.0.0.1",
    "localhost",
    "localhost:{port}.evil.example",
    "localhost:{port}@evil.example",
    "evil.example@localhost:{port}",
    "[::]:{port}",
    "[::ffff:8.8.8.8]:{port}",
    "2130706433:{port}",
    "0x7f.1:{port}",
    "10.0.0.1:{port}",
    "169.254.169.254:{port}",
    "localhost:{port},evil.example",
    "",
]
#: What a cross-site request carries -> the statuses that refuse it.
CROSS_SITE: dict[str, tuple[dict[str, str], set[int]]] = {
    "origin": ({"Origin": "https://evil.example"}, {403}),
    "null origin": ({"Origin": "null"}, {403}),
    "origin with our port": ({"Origin": "http://evil.example:{port}"}, {403}),
    "origin of another local port": ({"Origin": "http://localhost:1"}, {403}),
    "fetch metadata": ({"Sec-Fetch-Site": "cross-site"}, {403}),
    "text/plain": ({"Content-Type": "text/plain"}, {415}),
    "no content type": ({"Content-Type": ""}, {415}),
    "a form": ({"Content-Type": "application/x-www-form-urlencoded"}, {415}),
    "a multipart form": ({"Content-Type": "multipart/form-data; boundary=x"}, {415}),
}
WRITES = ["/v1/jobs", "/v1/jobs/bulk", "/v1/queues/default/pause"]


def ask(
    server: LiveServer, method: str, path: str, headers: dict[str, str], body: str = ""
) -> tuple[int, str]:
    """Status and body of a request whose headers are just these."""
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        link.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            link.putheader(name, value.format(port=server.port))
        if body:
            link.putheader("Content-Length", str(len(body)))
        link.endheaders(body.encode() or None)
        answer = link.getresponse()
        return answer.status, answer.read().decode()
    finally:
        link.close()


def test_foreign_hosts_are_refused_on_every_route(server_fixture: ServerFixture) -> None:
    server = server_fixture.start()
    for path in ("/v1/jobs", "/healthz", "/metrics", "/docs", "/openapi.json", "/nowhere"):
        for host in FOREIGN_HOSTS if path == "/v1/jobs" else FOREIGN_HOSTS[:3]:
            status, text = ask(server, "GET", path, {"Host": host})
            assert status in (400, 421), (path, host, status)
            assert status == 400 or json.loads(text)["code"] == "wrong_host", (path, host)
    assert ask(server, "GET", "/v1/jobs", {})[0] in (400, 421), "no Host at all"
    for host in ("127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}"):
        assert ask(server, "GET", "/v1/jobs", {"Host": host})[0] == 200, host


def test_cross_site_requests_are_refused_and_do_nothing(server_fixture: ServerFixture) -> None:
    server = server_fixture.start()
    for name, (attack, refused) in CROSS_SITE.items():
        for path in WRITES:
            headers = {"Host": "127.0.0.1:{port}", "Content-Type": "application/json", **attack}
            if not headers["Content-Type"]:
                del headers["Content-Type"]
            if path.endswith("pause") and refused == {415}:
                continue
            status, text = ask(server, "POST", path, headers, BODY)
            assert status in refused, (name, path, status, text)
    assert server.jobs() == []
    assert not any(queue["paused"] for queue in server.http.get("/v1/queues").json()["data"])


def test_preflight_grants_nothing_and_get_changes_nothing(server_fixture: ServerFixture) -> None:
    server = server_fixture.start()
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = server.http.options("/v1/jobs", headers=preflight)
    assert answer.status_code >= 400
    assert "access-control-allow-origin" not in answer.headers
    for path in ("/v1/jobs/bulk", "/v1/queues/default/pause", "/v1/jobs/x/cancel"):
        assert server.http.get(path).status_code in (404, 405)


def test_our_own_origin_and_an_allowed_one_may_post(server_fixture: ServerFixture) -> None:
    server = server_fixture.start("--allow-origin", "https://app.example")
    for origin in ("http://127.0.0.1:{port}", "https://app.example"):
        headers = {"Host": "127.0.0.1:{port}", "Origin": origin, "Content-Type": "application/json"}
        assert ask(server, "POST", "/v1/jobs", headers, BODY)[0] == 202, origin
    answer = server.http.get("/v1/jobs", headers={"Origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_wide_bind_without_a_token_does_not_start(server_fixture: ServerFixture, host: str) -> None:
    process, ready, log = server_fixture.spawn("--host", host)
    with open(ready, "rb"):
        until(lambda: process.poll() is not None, "it refuses", within_s=4)
    assert process.returncode == 2
    assert "token" in log.read_text()
