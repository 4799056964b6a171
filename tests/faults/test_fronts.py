"""Effect: three fronts on one socket: killed one at a time, and stopped, under followers and submits."""

from __future__ import annotations

import http.client
import os
import selectors
import signal
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.faults.mutate import mutated, removed, swapped, value
from tests.faults.server_fixture import LiveServer, ServerFixture, until, wait_until_stable
from tests.faults.test_many_readers import ask_for_events, many_descriptors, read_until
from tests.faults.test_stream_resume import Follower

#: For requests over a connection of their own; to load certificates would take 30 ms of a core each time.
PLAIN: dict[str, Any] = {"trust_env": False, "timeout": 10, "verify": False}
FRONTS = 3
FOLLOWERS = 50
CHUNKS = 600
KILLS = 6
QUEUED = 60
WAITERS = 12
#: Eight pulses of 1 s without an answer, the one before them and the kill.
HUNG_S = 10.0
READERS = 500
#: About 20 events.
BYTES_EACH = 5_000
OTHERS_P99_S = 0.25
#: Each front listens on a socket of its own, as servers with SO_REUSEPORT do.
OWN_SOCKETS = [
    swapped("address-reuse", "SO_REUSEADDR", "SO_REUSEPORT"),
    removed("one-accept-queue"),
    value(
        "inherited-socket",
        "[socket.create_server((config.host, config.port), backlog=4096, reuse_port=True)]",
    ),
]


def figure(server: LiveServer, line: str) -> float:
    """A figure of /metrics, asked over a connection of its own."""
    text = httpx2.get(f"{server.url}/metrics", **PLAIN).text
    found = next(each for each in text.splitlines() if each.startswith(f"{line} "))
    return float(found.rpartition(" ")[2])


def all_answer(server: LiveServer) -> bool:
    """Whether as many fronts take requests as there should be; asked over a connection of its own."""
    try:
        return figure(server, 'runner_fronts{state="answering"}') == FRONTS
    except httpx2.TransportError:
        return False


def start(server_fixture: ServerFixture, **env: str) -> LiveServer:
    server = server_fixture.start("--fronts", str(FRONTS), env=env)
    until(lambda: all_answer(server), "all fronts answer", within_s=10)
    return server


def kill(server: LiveServer, pid: int) -> float:
    """Seconds from the SIGKILL of a front to the moment when there are as many as before."""
    lost = figure(server, "runner_fronts_lost_total")
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()

    def is_told() -> bool:
        try:
            return figure(server, "runner_fronts_lost_total") > lost
        except httpx2.TransportError:
            return False

    until(is_told, "its loss is counted")
    until(lambda: all_answer(server), "it is replaced", within_s=10)
    return time.monotonic() - began


class Poster:
    """Submits one job after another; a POST whose connection broke is made again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.accepted: list[str] = []
        self.broken = 0

    def run(self, stop: threading.Event) -> None:
        with httpx2.Client(base_url=self.url, **PLAIN) as http:
            while not stop.wait(0.005):
                try:
                    answer = http.post("/v1/jobs", json={"handler": "echo", "input": {"queue": 1}})
                except httpx2.TransportError:
                    self.broken += 1
                    continue
                assert answer.status_code == 202, answer.text
                self.accepted.append(answer.json()["id"])


@pytest.mark.slow
@pytest.mark.timed
def test_no_job_and_no_event_is_lost_with_a_front(server_fixture: ServerFixture) -> None:
    server, gate = start(server_fixture), server_fixture.folder / "gate"
    job_id = server.submit("talk", {"n": CHUNKS, "gate": str(gate)})
    give_up, stop = threading.Event(), threading.Event()
    followers = [Follower(server.url, job_id, seed, cuts=0) for seed in range(FOLLOWERS)]
    posters = [Poster(server.url) for _ in range(6)]
    with ThreadPoolExecutor(FOLLOWERS + len(posters)) as pool:
        following = [pool.submit(follower.run, give_up) for follower in followers]
        posting = [pool.submit(poster.run, stop) for poster in posters]
        try:
            half = CHUNKS // 2
            until(lambda: all(len(f.seen) >= half for f in followers), "half was seen", within_s=10)
            # The oldest each time: none of the first three stays.
            took_s = [kill(server, min(server_fixture.pids_of_role("front"))) for _ in range(KILLS)]
            gate.touch()
            for future in following:
                future.result(timeout=10)
        finally:
            give_up.set()
            stop.set()
        for future in posting:
            future.result(timeout=10)
    # 0.2 s of pause and the start of a process, of which the start of the whole server was several.
    assert max(took_s) <= 1 + 2 * server.ready_s, (took_s, server.ready_s)
    stored = [event for event in server.events(job_id) if event.id]
    for follower in followers:
        assert [event.id for event in follower.seen] == list(range(1, len(stored) + 1))
        assert follower.seen == stored
    assert sum(follower.broken for follower in followers) >= FOLLOWERS, "each front had its readers"
    accepted = [job for poster in posters for job in poster.accepted]
    assert len(accepted) >= 100 and sum(poster.broken for poster in posters) >= 1
    until(lambda: not server.counts()["queued"] + server.counts()["running"], "all jobs have ended")
    ended = {job["id"] for job in server.jobs(state="succeeded")}
    assert set(accepted) <= ended
    assert len(server_fixture.pids_of_role("front")) == FRONTS


@pytest.mark.slow
@pytest.mark.timed
def test_who_waits_for_a_job_is_told_when_the_front_dies(server_fixture: ServerFixture) -> None:
    server, gate = start(server_fixture), server_fixture.folder / "gate"
    body = {"handler": "steady", "input": {"gate": str(gate)}}
    broke_at: list[float] = []

    def wait() -> None:
        try:
            patient = PLAIN | {"timeout": 50}
            httpx2.post(f"{server.url}/v1/jobs", json=body, headers={"Prefer": "wait=60"}, **patient)
        except httpx2.TransportError:
            broke_at.append(time.monotonic())

    with ThreadPoolExecutor(WAITERS) as pool:
        waiting = [pool.submit(wait) for _ in range(WAITERS)]
        until(lambda: len(server.jobs()) == WAITERS, "all are taken in")
        server.http.close()
        for pid in server_fixture.pids_of_role("front"):
            os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        for future in waiting:
            future.result(timeout=5)
    assert len(broke_at) == WAITERS
    assert max(broke_at) - killed_at <= 1.0
    until(lambda: all_answer(server), "all are replaced", within_s=10)
    gate.touch()
    assert figure(server, "runner_fronts_lost_total") == FRONTS


def queue_up(server: LiveServer) -> list[socket.socket]:
    """Clients that are connected and have asked, of a server none of whose fronts accepts anything."""
    links = []
    for _ in range(QUEUED):
        link = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        link.sendall(f"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        links.append(link)
    return links


def served(link: socket.socket) -> bool:
    """Whether a queued client gets its answer."""
    with link:
        try:
            return link.recv(1024).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def served_beside_a_death(server_fixture: ServerFixture, server: LiveServer) -> int:
    """How many of those who wait to be accepted are served although one front dies meanwhile."""
    server.http.close()
    fronts = server_fixture.pids_of_role("front")
    for pid in fronts:
        os.kill(pid, signal.SIGSTOP)
    links = queue_up(server)
    os.kill(fronts[0], signal.SIGKILL)
    until(lambda: fronts[0] not in server_fixture.pids_of_role("front"), "it is dead")
    for pid in fronts[1:]:
        os.kill(pid, signal.SIGCONT)
    return sum(served(link) for link in links)


def test_who_waits_to_be_accepted_outlives_a_front(server_fixture: ServerFixture) -> None:
    assert served_beside_a_death(server_fixture, start(server_fixture)) == QUEUED


@pytest.mark.slow
def test_with_sockets_of_their_own_the_waiting_die_with_a_front(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, OWN_SOCKETS))
    with ExitStack() as stack:
        stack.callback(server_fixture.close)
        assert served_beside_a_death(server_fixture, start(server_fixture)) < QUEUED


@pytest.mark.slow
@pytest.mark.timed
def test_a_front_that_hangs_is_told_of_and_replaced(server_fixture: ServerFixture) -> None:
    server = start(server_fixture)
    job_id = server.submit("steady", {"gate": str(server_fixture.folder / "gate")})
    with ExitStack() as stack, ThreadPoolExecutor(WAITERS) as pool:
        give_up = threading.Event()
        stack.callback(give_up.set)
        followers = [Follower(server.url, job_id, seed, cuts=0) for seed in range(WAITERS)]
        following: list[Future[None]] = [pool.submit(follower.run, give_up) for follower in followers]
        until(lambda: all(follower.seen for follower in followers), "all read")
        (hung, *_) = server_fixture.pids_of_role("front")
        os.kill(hung, signal.SIGSTOP)
        told: set[str] = set()
        took_s: list[float] = []

        def is_gone() -> bool:
            asked = time.monotonic()
            told.add(httpx2.get(f"{server.url}/readyz", **PLAIN).json()["status"])
            took_s.append(time.monotonic() - asked)
            return hung not in server_fixture.pids_of_role("front")

        until(is_gone, "it is killed", within_s=HUNG_S, every_s=0.05)
        assert told == {"ok", "degraded"}
        assert max(took_s) <= 1.0, "the others took every new connection"
        until(lambda: all_answer(server), "it is replaced", within_s=10)
        (server_fixture.folder / "gate").touch()
        for future in following:
            future.result(timeout=10)
    assert {follower.seen[-1].name for follower in followers} == {"done"}
    assert sum(follower.broken for follower in followers) >= 1


@pytest.mark.slow
def test_without_the_watch_a_hung_front_stays(tmp_path: Path) -> None:
    blind = [value("pulse", "0.1"), value("silent-pulses", "10_000"), value("busy-pulses", "10_000")]
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, blind))
    with ExitStack() as stack:
        stack.callback(server_fixture.close)
        server = start(server_fixture)
        (hung, *_) = server_fixture.pids_of_role("front")
        os.kill(hung, signal.SIGSTOP)
        lost = "runner_fronts_lost_total"
        until(lambda: figure(server, 'runner_fronts{state="silent"}') == 1, "it is missed", within_s=5)
        # Thirty pulses and more, which would be its end three times over.
        wait_until_stable(lambda: figure(server, lost), "nothing is done about it", for_s=3.0)
        assert hung in server_fixture.pids_of_role("front") and figure(server, lost) == 0


@pytest.mark.slow
def test_a_start_without_any_front_is_refused_with_a_sentence(tmp_path: Path) -> None:
    mute = [removed("front-hello"), value("front-wait", "1.0")]
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, mute))
    with ExitStack() as stack:
        stack.callback(server_fixture.close)
        process, ready, log = server_fixture.spawn()
        stack.callback(os.close, ready)
        assert process.wait(15) == 2
        assert "no front has answered within 1 s" in log.read_text()
        assert "Traceback" not in log.read_text()
        until(lambda: not server_fixture.processes(), "nothing is left")


def test_figures_and_limits_are_the_coordinators_whichever_front_answers(
    server_fixture: ServerFixture,
) -> None:
    server = start(server_fixture, RUNNER_LIMITS__QUEUED="2")
    server.http.post("/v1/queues/default/pause")
    server.http.close()
    fronts, told = server_fixture.pids_of_role("front"), []
    for alone in fronts:
        others = [pid for pid in fronts if pid != alone]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        body = {"handler": "echo", "input": {}}
        answer = httpx2.post(f"{server.url}/v1/jobs", json=body, **PLAIN)
        told.append((answer.status_code, figure(server, 'runner_jobs{queue="default",state="queued"}')))
        for pid in others:
            os.kill(pid, signal.SIGCONT)
    assert told == [(202, 1), (202, 2), (429, 2)]


class Drain:
    """Reads streams as they come."""

    def __init__(self, links: list[socket.socket]) -> None:
        self.links = links
        self.bytes = 0

    def run(self, stop: threading.Event) -> None:
        with selectors.DefaultSelector() as selector:
            for link in self.links:
                selector.register(link, selectors.EVENT_READ, link)
            while not stop.is_set():
                for key, _ in selector.select(0.1):
                    self.bytes += len(key.data.recv(65_536))


def seconds_of(server: LiveServer, path: str) -> float:
    """How long an answer takes over a connection of its own."""
    began = time.monotonic()
    asking = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    asking.request("GET", path)
    assert asking.getresponse().status == 200
    asking.close()
    return time.monotonic() - began


@pytest.mark.serial
def test_a_front_with_many_readers_does_not_slow_down_the_others(server_fixture: ServerFixture) -> None:
    """All readers are at one front; new connections go to whoever is free."""
    with many_descriptors(4_096), ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        server, gate = start(server_fixture), server_fixture.folder / "gate"
        job_id = server.submit("ticker", {"gate": str(gate), "every_s": 0.1, "padding": 100}, timeout_s=60)
        server.http.close()
        _, *others = server_fixture.pids_of_role("front")
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        links = [stack.enter_context(ask_for_events(server, job_id)) for _ in range(READERS)]
        for link in links:
            read_until(link, b"event: snapshot")
        for pid in others:
            os.kill(pid, signal.SIGCONT)
        stop, took_s, readers = threading.Event(), list[float](), Drain(links)
        reading = pool.submit(readers.run, stop)
        stack.callback(stop.set)
        deadline = time.monotonic() + 20
        while len(took_s) < 200 or readers.bytes < READERS * BYTES_EACH:
            assert time.monotonic() < deadline, "the readers are fed all the while"
            took_s.append(seconds_of(server, f"/v1/jobs/{job_id}"))
        stop.set()
        gate.touch()
        reading.result(timeout=5)
    assert sorted(took_s)[int(len(took_s) * 0.99)] <= OTHERS_P99_S, sorted(took_s)[-10:]
