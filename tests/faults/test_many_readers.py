"""Effect: a thousand clients that wait for events, some that never read, and one that must not notice."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.mutate import mutated, value
from tests.faults.server_fixture import LiveServer, ServerFixture, until

pytestmark = pytest.mark.serial

#: In the suite a thousand; FAULT_TEST_READERS=10000 is for a machine with time and descriptors to spare.
IDLE = int(os.environ.get("FAULT_TEST_READERS", "1000"))
NEVER_READING = 20
EVERY_S = 0.02
#: Large enough that the kernel's buffers for one who never reads are full within a second.
PADDING_BYTES = 8_000
#: A reader that stalls is cut after 3 s instead of 30.
SOONER = value("stream-stall", "3.0")
LIVE_P99_S = 0.25
#: Of the other routes, while the idle are there.
ROUTE_P99_S = 0.05
IDLE_BYTES = 60_000
NEVER_BYTES = 20 << 20


@contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """This process, and those it starts, may hold so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"only {hard} descriptors are permitted here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ask_for_events(server: LiveServer, job_id: str, *, buffer_bytes: int | None = None) -> socket.socket:
    """A client that has asked for a job's stream and read nothing of it."""
    link = socket.socket()
    if buffer_bytes is not None:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    link.settimeout(5)
    link.connect(("127.0.0.1", server.port))
    link.sendall(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    return link


def read_until(link: socket.socket, mark: bytes) -> None:
    """Read a stream up to an event of this name."""
    text = b""
    while mark not in text:
        chunk = link.recv(65_536)
        assert chunk, text
        text += chunk


class Live:
    """Reads a stream as it comes and notes how old each event is when it is there."""

    def __init__(self, server: LiveServer, job_id: str) -> None:
        self.delays_s: list[float] = []
        self._thread = threading.Thread(target=self._run, args=(server, job_id))
        self._thread.start()

    def _run(self, server: LiveServer, job_id: str) -> None:
        since = time.time()
        for event in server.events(job_id):
            # What was there before is read from the store, and is as old as it is.
            if event.name == "output" and event.data["chunk"]["at"] > since:
                self.delays_s.append(time.time() - event.data["chunk"]["at"])

    def join(self) -> None:
        self._thread.join(5)
        assert not self._thread.is_alive(), "its stream ends with the job"


def route_p99_s(server: LiveServer, job_id: str) -> float:
    """How long other routes take, the slowest in a hundred left out."""
    took: list[float] = []
    for path in ("/healthz", "/readyz", "/v1/stats", f"/v1/jobs/{job_id}") * 50:
        began = time.monotonic()
        assert server.http.get(path).status_code == 200
        took.append(time.monotonic() - began)
    return sorted(took)[int(len(took) * 0.99) - 1]


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def established(pid: int) -> int:
    """How many sockets a process holds."""
    links = [Path(entry) for entry in os.scandir(f"/proc/{pid}/fd")]
    return sum(os.readlink(link).startswith("socket:") for link in links if link.is_symlink())


@pytest.mark.slow
def test_a_live_reader_does_not_notice_the_idle_and_the_dead(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, [SOONER]))
    with many_descriptors(IDLE + 3_096), ExitStack() as stack:
        stack.callback(server_fixture.close)
        server, gate = server_fixture.start(), str(tmp_path / "gate")
        (front,) = server_fixture.pids_of_role("front")
        quiet = server.submit("steady", {"gate": gate}, timeout_s=60)
        loud = server.submit(
            "ticker", {"gate": gate, "every_s": EVERY_S, "padding": PADDING_BYTES}, timeout_s=60
        )
        before_bytes = rss_bytes(front)
        idle = [stack.enter_context(ask_for_events(server, quiet)) for _ in range(IDLE)]
        for link in idle:
            # From here on it is open.
            read_until(link, b"event: snapshot")
        idle_bytes = (rss_bytes(front) - before_bytes) / IDLE
        assert min(route_p99_s(server, quiet) for _ in range(3)) <= ROUTE_P99_S
        sockets, open_bytes = established(front), rss_bytes(front)
        for _ in range(NEVER_READING):
            stack.enter_context(ask_for_events(server, loud, buffer_bytes=4_096))
        until(lambda: established(front) >= sockets + NEVER_READING, "the dead are connected")
        live, highest = Live(server, loud), open_bytes

        def are_cut() -> bool:
            nonlocal highest
            highest = max(highest, rss_bytes(front))
            return established(front) <= sockets + 1

        until(are_cut, "those who never read are cut", within_s=6, every_s=0.05)
        Path(gate).touch()
        live.join()
        p99_s = sorted(live.delays_s)[int(len(live.delays_s) * 0.99)]
        assert idle_bytes <= IDLE_BYTES
        assert p99_s <= LIVE_P99_S and len(live.delays_s) >= 100
        assert highest - open_bytes <= NEVER_BYTES
        for link in idle:
            # An idle client gets its job's last event like everybody else.
            read_until(link, b"event: done")
