"""How a front ends: by word, by the loss of its coordinator, never by a signal."""

from __future__ import annotations

import signal
import threading
import time

import httpx2
import pytest

from runner.protocol import front as front_protocol
from tests.api.fake_coordinator import RunningFront, running_front
from tests.api.streaming.test_sse import open_stream, read_all


def exit_code(front: RunningFront, timeout_s: float = 3.0) -> int:
    return front.child.process.wait(timeout_s)


def test_drain_refuses_new_jobs_while_reads_and_streams_go_on() -> None:
    with running_front() as front, httpx2.Client(base_url=front.url) as http:
        job = front.fake.new()
        stream = open_stream(front, job)
        front.fake.send(front_protocol.ShutdownBegun(7.0))
        # Each try is a round trip behind the word to drain.
        tries = (http.post("/v1/jobs", json={"handler": "echo"}).status_code for _ in range(100))
        assert 503 in tries
        for path in ("/v1/jobs", "/v1/jobs/bulk", "/v1/handlers/echo/jobs"):
            refused = http.post(path, json={"handler": "echo"})
            assert (refused.status_code, refused.json()["code"]) == (503, "shutting_down")
            assert 1 <= int(refused.headers["retry-after"]) <= 7
        assert http.get(f"/v1/jobs/{job.id}").status_code == 200
        front.fake.finish(job)
        assert b"event: done" in read_all(stream)
        stream.close()


def test_streams_end_at_the_drains_deadline() -> None:
    with running_front() as front:
        stream = open_stream(front, front.fake.new())
        front.fake.send(front_protocol.ShutdownBegun(0.3))
        assert b"retry: " in read_all(stream)
        stream.close()


@pytest.mark.timed
def test_exit_finishes_answers_closes_streams_and_ends_within_a_second() -> None:
    with running_front() as front:
        streams = [open_stream(front, front.fake.new()) for _ in range(50)]
        answers: list[httpx2.Response] = []
        waiting = wait_for_job(front, answers)
        started = time.monotonic()
        front.fake.send(front_protocol.Exit())
        for job in list(front.fake.jobs.values()):
            front.fake.finish(job)
        waiting.join(5)
        assert answers[0].json()["state"] == "succeeded"
        assert all(read_all(stream).endswith(b"0\r\n\r\n") for stream in streams)
        assert exit_code(front) == 0
        assert time.monotonic() - started < 1.3
        for stream in streams:
            stream.close()


def test_exit_gives_up_answers_that_do_not_come() -> None:
    with running_front() as front:
        answers: list[httpx2.Response] = []
        waiting = wait_for_job(front, answers)
        front.fake.send(front_protocol.Exit())
        waiting.join(5)
        assert (answers[0].status_code, answers[0].json()["code"]) == (503, "shutting_down")
        assert exit_code(front) == 0


@pytest.mark.timed
def test_clients_that_stand_still_do_not_hold_up_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    with running_front() as front, front.connect() as upload:
        job = front.fake.new()
        stalled = open_stream(front, job, small=True)
        front.fake.emit_many(job, 5000, "x" * 1000)
        # So far behind that the front pages for it: more than the kernel holds was sent.
        front.fake.until(
            lambda: sum(isinstance(asked, front_protocol.ReadEvents) for asked in front.fake.asked) > 1
        )
        line = "POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n"
        upload.sendall(line.format(front.port).encode() + b"Content-Length: 1000\r\n\r\n{")
        with httpx2.Client(base_url=front.url) as http:
            # Accepted after the upload, so that the upload is being read by now.
            assert http.get("/healthz").status_code == 200
        started = time.monotonic()
        front.fake.send(front_protocol.Exit())
        assert exit_code(front) == 0
        assert time.monotonic() - started < 1.5
        stalled.close()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("what", ["control stream", "lifeline"])
def test_without_its_coordinator_a_front_answers_503_and_ends(what: str) -> None:
    with running_front() as front:
        stream = open_stream(front, front.fake.new())
        answers: list[httpx2.Response] = []
        waiting = wait_for_job(front, answers)
        if what == "lifeline":
            front.child.lifeline.close()
        else:
            front.fake.cut()
        waiting.join(5)
        assert (answers[0].status_code, answers[0].json()["code"]) == (503, "unavailable")
        assert "retry-after" in answers[0].headers
        assert read_all(stream).endswith(b"0\r\n\r\n")
        assert exit_code(front) == 0
        stream.close()


def test_a_coordinator_that_speaks_nonsense_is_as_good_as_none() -> None:
    with running_front() as front:
        front.fake.write(b"\xff" * 100)
        assert exit_code(front) == 0


def test_signals_of_the_terminal_end_nothing() -> None:
    with running_front() as front, httpx2.Client(base_url=front.url) as http:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            front.child.signal(number)
        assert http.get("/healthz").status_code == 200
        assert front.child.reap() is None


def wait_for_job(front: RunningFront, answers: list[httpx2.Response]) -> threading.Thread:
    """A client that waits for a job which does not end by itself."""
    before = len(front.fake.jobs)

    def post() -> None:
        with httpx2.Client(base_url=front.url, timeout=20) as http:
            answers.append(http.post("/v1/jobs", json={"handler": "slow"}, headers={"prefer": "wait=60"}))

    thread = threading.Thread(target=post)
    thread.start()
    front.fake.until(lambda: len(front.fake.jobs) > before)
    return thread
