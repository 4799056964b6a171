"""Effect: bodies and requests that no honest client sends."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from pathlib import Path

import httpx2
import pytest

from tests.faults.mutate import mutated, removed, value
from tests.faults.server_fixture import LiveServer, ServerFixture, until

HEAD = b'{"handler":"echo","input":'
JSON = {"Content-Type": "application/json"}
#: name -> body of POST /v1/jobs; all must be refused.
REFUSED: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"hello",
    "cut off": HEAD + b'{"a":',
    "trailing text": HEAD + b"{}} x",
    "a list": b"[]",
    "a number": b"7",
    "depth 100,000": HEAD + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "depth 100,000 of objects": HEAD + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "depth 65": HEAD + b"[" * 65 + b"]" * 65 + b"}",
    "5,000 digits": HEAD + b'{"a":' + b"9" * 5_000 + b"}}",
    "2**70": HEAD + b'{"a":' + str(2**70).encode() + b"}}",
    "NaN": HEAD + b'{"a":NaN}}',
    "Infinity": HEAD + b'{"a":-Infinity}}',
    "1e999": HEAD + b'{"a":1e999}}',
    "lone surrogate": HEAD + b'{"a":"\\ud800"}}',
    "lone surrogate as a key": HEAD + b'{"\\udfff":1}}',
    "invalid UTF-8": HEAD + b'{"a":"\xff\xfe"}}',
    "UTF-8 of a surrogate": HEAD + b'{"a":"\xed\xa0\x80"}}',
    "raw control character": HEAD + b'{"a":"\x01"}}',
    "raw NUL": HEAD + b'{"a":"\x00"}}',
    "NUL in a name": b'{"handler":"ec\\u0000ho","input":{}}',
    "UTF-16": '{"handler":"echo","input":{}}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + HEAD + b"{}}",
    "unknown field": HEAD + b'{},"colour":1}',
    "handler of a wrong type": b'{"handler":1,"input":{}}',
    "no handler": b'{"input":{}}',
    "unknown handler": b'{"handler":"nobody","input":{}}',
    "handler as a path": b'{"handler":"../../etc/passwd","input":{}}',
    "priority as text": HEAD + b'{},"priority":"1; drop table"}',
    "huge priority": HEAD + b'{},"priority":1' + b"0" * 30 + b"}",
    "negative timeout": HEAD + b'{},"timeout_s":-1}',
    "infinite delay": HEAD + b'{},"delay_s":1e400}',
    "a date that is none": HEAD + b'{},"run_at":"2024-02-30T00:00:00Z"}',
    "a queue of wrong letters": HEAD + b'{},"queue":"a b"}',
    "retries of 2**40": HEAD + b'{},"retries":1099511627776}',
}
#: Odd but honest; all must be accepted.
ACCEPTED: dict[str, bytes] = {
    "NUL inside a string": HEAD + b'{"a":"\\u0000"}}',
    "a pair of surrogates": HEAD + b'{"a":"\\ud83d\\ude00"}}',
    "depth 60": HEAD + b'{"a":' + b"[" * 58 + b"]" * 58 + b"}}",
    "2**63 - 1": HEAD + b'{"a":9223372036854775807}}',
    "a long string": HEAD + b'{"a":"' + b"x" * 100_000 + b'"}}',
}
SLOW_S = 0.1
GROWTH_BYTES = 32 * 2**20
#: The limit is 10 s; a test has no such time.
SOONER = value("receipt-timeout", "1.0")


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.timed
def test_a_table_of_bad_bodies_is_refused_quickly_and_costs_nothing(server_fixture: ServerFixture) -> None:
    server = server_fixture.start()
    (front,) = server_fixture.pids_of_role("front")
    for body in ACCEPTED.values():
        assert server.http.post("/v1/jobs", content=body, headers=JSON).status_code == 202
    before = rss_bytes(front), rss_bytes(server.pid)
    for name, body in REFUSED.items():
        answer, spent = _refuse(server, body)
        assert 400 <= answer.status_code < 500, (name, answer.status_code, answer.text[:200])
        assert answer.headers["content-type"] == "application/problem+json", name
        assert answer.json()["code"], name
        assert spent <= SLOW_S, (name, spent)
    for name, body in REFUSED.items():
        bulk = b'{"jobs":[' + (body or b"{") + b"]}"
        answer = server.http.post("/v1/jobs/bulk", content=bulk, headers=JSON)
        assert answer.status_code < 500, (name, answer.status_code, answer.text[:200])
    assert rss_bytes(front) - before[0] <= GROWTH_BYTES
    assert rss_bytes(server.pid) - before[1] <= GROWTH_BYTES
    assert server.wait_for_end(server.submit("echo", {"still": "here"}))["output"] == {"still": "here"}


def _refuse(server: LiveServer, body: bytes) -> tuple[httpx2.Response, float]:
    """The answer and how long it took; the best of three, for other work may have had the processor."""
    spent = []
    for _ in range(3):
        started = time.monotonic()
        answer = server.http.post("/v1/jobs", content=body, headers=JSON)
        spent.append(time.monotonic() - started)
        if spent[-1] <= SLOW_S:
            break
    return answer, min(spent)


@pytest.mark.slow
def test_accepted_oddities_come_back_unchanged(server_fixture: ServerFixture) -> None:
    server = server_fixture.start()
    values: list[object] = ["\0", "😀", 2**63 - 1, -(2**63), 1.5e308, "x" * 1000, [[[]]], {"": {}}]
    for each in values:
        job = server.wait_for_end(server.submit("echo", {"a": each}))
        assert job["output"] == {"a": each}


@pytest.mark.slow
def test_large_and_chunked_bodies_are_cut_at_the_limit(server_fixture: ServerFixture) -> None:
    server = server_fixture.start(env={"RUNNER_LIMITS__BODY_BYTES": "1MiB"})
    (front,) = server_fixture.pids_of_role("front")
    before = rss_bytes(front)
    big = HEAD + b'"' + b"x" * (2 << 20) + b'"}'
    assert server.http.post("/v1/jobs", content=big, headers=JSON).status_code == 413
    assert _chunked(server, 60_000) == 413
    bomb = gzip.compress(HEAD + b'"' + b"x" * (50 << 20) + b'"}')
    packed = {**JSON, "Content-Encoding": "gzip"}
    assert 400 <= server.http.post("/v1/jobs", content=bomb, headers=packed).status_code < 500
    assert rss_bytes(front) - before <= GROWTH_BYTES


def _chunked(server: LiveServer, chunks: int) -> int:
    """The status for a body of many small chunks that together pass the limit."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as link:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        link.sendall(head.encode() + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        sender = threading.Thread(target=_send_chunks, args=(link, chunks))
        sender.start()
        answer = link.recv(4096)
        link.shutdown(socket.SHUT_RDWR)
        sender.join()
    return int(answer[9:12])


def _send_chunks(link: socket.socket, chunks: int) -> None:
    # The server may hang up in the middle: that is the point.
    try:
        for _ in range(chunks // 100):
            link.sendall(b"14\r\n" + b" " * 20 + b"\r\n" * 1 + (b"14\r\n" + b" " * 20 + b"\r\n") * 99)
        link.sendall(b"0\r\n\r\n")
    except OSError:
        return


@pytest.mark.slow
@pytest.mark.timed
@pytest.mark.parametrize("part", ["head", "body"])
def test_a_trickle_is_closed_at_its_limit(tmp_path: Path, part: str) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, [SOONER]))
    try:
        server = server_fixture.start()
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as link:
            link.sendall(_beginning(part, server.port))
            link.settimeout(0.1)
            until(lambda: _is_closed(link), "the trickle is cut off")
        assert 1 <= time.monotonic() - started <= 2
    finally:
        server_fixture.close()


def _beginning(part: str, port: int) -> bytes:
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 1000\r\n".encode()
    return head + (b"X-Slow: " if part == "head" else b"Content-Type: application/json\r\n\r\n")


def _is_closed(link: socket.socket) -> bool:
    """Send one byte more, and see."""
    try:
        link.sendall(b"x")
        while link.recv(4096):
            continue
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


def check_trailer(server_fixture: ServerFixture) -> None:
    """A wait in a trailer is refused, and the job of that request is not accepted."""
    server = server_fixture.start()
    body = HEAD + b'{"a":1}}'
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
    chunk = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(body), body)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as link:
        link.sendall(head.encode() + chunk + b"Prefer: wait=5\r\n\r\n")
        answer = link.recv(4096)
    assert answer.startswith(b"HTTP/1.1 400 ") and b"trailer fields are not supported" in answer
    assert server.jobs() == []


@pytest.mark.slow
def test_a_trailer_is_refused(server_fixture: ServerFixture) -> None:
    check_trailer(server_fixture)


@pytest.mark.slow
def test_without_its_guard_a_trailer_would_be_taken(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, [removed("trailers-refused")]))
    try:
        with pytest.raises(AssertionError):
            check_trailer(server_fixture)
    finally:
        server_fixture.close()
