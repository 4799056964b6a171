"""Effect: the context of a device is lost under a handler: told by look-alikes."""

from __future__ import annotations

import pytest

from tests.faults.server_fixture import Document, LiveServer, ServerFixture, read_trace

pytestmark = pytest.mark.slow


def pids(server: LiveServer, job: Document) -> list[int]:
    """The process of each attempt."""
    return [event.data["chunk"] for event in server.events(job["id"]) if event.name == "output"]


def run(server: LiveServer, **data: object) -> Document:
    """A job without retries of its own, ended."""
    return server.wait_for_end(server.submit("device_error", data))


def test_after_a_lost_context_the_process_is_never_used_again(server_fixture: ServerFixture) -> None:
    server = server_fixture.start("--gpus", "sim:1x24GiB")
    job = run(server, kind="sticky", times=1)
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job
    error = server.attempts(job["id"])[0]["error"]
    assert (error["code"], error["detail"]["context_lost"]) == ("handler_error", True)
    first, second = pids(server, job)
    assert first != second
    assert run(server)["output"]["pid"] == second


def test_it_goes_elsewhere_where_there_is_another_device(server_fixture: ServerFixture) -> None:
    server = server_fixture.start("--gpus", "sim:2x24GiB")
    job = run(server, kind="sticky", times=1)
    assert job["state"] == "succeeded", job
    assert [each["devices"] for each in server.attempts(job["id"])] == [["sim0"], ["sim1"]]


def test_the_second_time_is_the_last(server_fixture: ServerFixture) -> None:
    server, trace = server_fixture.start("--gpus", "sim:1x24GiB"), server_fixture.folder / "trace"
    job = run(server, kind="sticky", times=99, trace=str(trace))
    assert (job["state"], job["error"]["code"]) == ("failed", "handler_error")
    assert read_trace(trace) == [(job["id"], 1), (job["id"], 2)]
