"""Effect: the server is told to stop while it is busy: once, and by somebody who does not wait."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.faults.mutate import mutated, value
from tests.faults.server_fixture import LiveServer, ServerFixture, until

pytestmark = pytest.mark.timed

GRACE_S = 1.0
STREAMS = 50
TERM, INT = signal.SIGTERM, signal.SIGINT


class Load:
    """50 streams, 2 running jobs, 200 waiting ones and a client that goes on posting."""

    def __init__(self, server_fixture: ServerFixture, server: LiveServer, streams: int = STREAMS) -> None:
        self.server = server
        gate = str(server_fixture.folder / "never")
        self.running = [server.submit("steady", {"gate": gate}, retries=1, timeout_s=60) for _ in range(2)]
        self.waiting = server.submit_many("echo", [{}] * 200, queue="waiting")
        until(lambda: all(server.job(j)["progress"] for j in self.running), "two jobs run")
        self.refused: list[httpx2.Response] = []
        self.pool = ThreadPoolExecutor(streams + 1)
        self.ready = threading.Barrier(streams + 1)
        self.streams: list[Future[None]] = [
            self.pool.submit(self._stream, self.running[n % 2]) for n in range(streams)
        ]
        self.ready.wait(5)
        self.posting = self.pool.submit(self._post)

    def _stream(self, job_id: str) -> None:
        path = f"{self.server.url}/v1/jobs/{job_id}/events"
        try:
            with httpx2.stream("GET", path, timeout=20, trust_env=False) as answer:
                lines = answer.iter_lines()
                next(lines)
                self.ready.wait(5)
                for _ in lines:
                    continue
        except httpx2.TransportError:
            return

    def _post(self) -> None:
        try:
            while True:
                body = {"handler": "echo", "input": {}, "queue": "late"}
                answer = httpx2.post(f"{self.server.url}/v1/jobs", json=body, timeout=5, trust_env=False)
                if answer.status_code != 202:
                    self.refused.append(answer)
        except httpx2.TransportError:
            return

    def close(self) -> None:
        self.pool.shutdown()


def test_one_term_lets_go_of_everything_within_the_grace(server_fixture: ServerFixture) -> None:
    server = server_fixture.start("--grace", "1s")
    load = Load(server_fixture, server)
    started = time.monotonic()
    server.signal(TERM)
    assert server.exit_code(within_s=GRACE_S + 3) == 0
    assert time.monotonic() - started <= GRACE_S + 2
    load.close()
    assert load.refused
    assert {answer.status_code for answer in load.refused} == {503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in load.refused)
    assert load.refused[0].json()["code"] == "shutting_down"
    until(lambda: not server_fixture.processes(), "no process is left", within_s=1)
    log = server.log.read_text()
    assert "stopping: running jobs (2) have 1 s to finish" in log
    assert "Traceback" not in log
    _assert_nothing_consumed(server_fixture, load)


def _assert_nothing_consumed(server_fixture: ServerFixture, load: Load) -> None:
    server = server_fixture.start(executors=4)
    for job_id in load.running:
        job = server.job(job_id)
        assert job["state"] in ("queued", "running"), job
        assert job["retries_left"] == 1
        assert server.attempts(job_id)[0]["error"]["code"] == "interrupted"
    until(lambda: server.counts("waiting").get("succeeded") == 200, "what waited runs")


def stop_the_writer(server_fixture: ServerFixture, server: LiveServer) -> None:
    """Two jobs run and the writer hangs: nothing is stored any more."""
    gate = str(server_fixture.folder / "never")
    running = [server.submit("steady", {"gate": gate}, retries=1, timeout_s=60) for _ in range(2)]
    until(lambda: all(server.job(j)["progress"] for j in running), "two jobs run")
    (writer,) = server_fixture.pids_of_role("writer")
    os.kill(writer, signal.SIGSTOP)


@pytest.mark.slow
@pytest.mark.parametrize("signals", [(TERM,), (TERM, TERM)], ids=["once", "twice"])
def test_a_writer_that_hangs_does_not_hold_up_the_stop(
    server_fixture: ServerFixture, signals: tuple[signal.Signals, ...]
) -> None:
    grace_s = GRACE_S if len(signals) == 1 else 30.0
    server = server_fixture.start("--grace", f"{grace_s}s")
    stop_the_writer(server_fixture, server)
    for number in signals:
        started = time.monotonic()
        server.signal(number)
        until(lambda: "stopping: running jobs" in server.log.read_text(), "the signal was heard")
    assert server.exit_code(within_s=GRACE_S + 3) == 0
    assert time.monotonic() - started <= 2 + (GRACE_S if len(signals) == 1 else 0)
    until(lambda: not server_fixture.processes(), "no process is left", within_s=1)
    log = server.log.read_text()
    assert "the last messages of workers are spooled" in log and "Traceback" not in log


@pytest.mark.slow
def test_without_a_bound_a_writer_that_hangs_holds_up_the_stop(tmp_path: Path) -> None:
    change = value("writer-within-stop", "await self._close(10.0)")
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, [change]))
    with ExitStack() as stack:
        stack.callback(server_fixture.close)
        server = server_fixture.start("--grace", "30s")
        stop_the_writer(server_fixture, server)
        started = time.monotonic()
        server.signal(TERM)
        until(lambda: "stopping: running jobs" in server.log.read_text(), "the signal was heard")
        server.signal(TERM)
        server.process.wait(20)
        assert time.monotonic() - started > 2.0


@pytest.mark.parametrize("signals", [(TERM, TERM), (INT, INT), (TERM,) * 5], ids=["TERM2", "INT2", "TERM5"])
def test_a_second_signal_ends_it_within_two_seconds(
    server_fixture: ServerFixture, signals: tuple[signal.Signals, ...]
) -> None:
    server = server_fixture.start("--grace", "30s")
    load = Load(server_fixture, server, streams=5)
    refusals = len(load.refused)
    server.signal(signals[0])
    until(lambda: len(load.refused) > refusals, "the first signal was heard")
    started = time.monotonic()
    for number in signals[1:]:
        if server.process.poll() is None:
            server.signal(number)
    server.exit_code(within_s=4)
    assert time.monotonic() - started <= 2.0
    load.close()
    until(lambda: not server_fixture.processes(), "no process is left", within_s=1)
    assert "Traceback" not in server.log.read_text()
