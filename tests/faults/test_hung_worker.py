"""Effect: a worker or the writer is stopped and goes on to exist; the server notices and replaces it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.mutate import Change, mutated, never, removed
from tests.faults.server_fixture import LiveServer, ServerFixture, until, wait_until_stable

#: Seven pulses of 1 s without an answer, the one before them, the kill and a new start.
REPLACED_S = 10.0


def status(server: LiveServer) -> tuple[str, dict[str, dict[str, str]]]:
    document = server.http.get("/readyz").json()
    return document["status"], document["parts"]


def stop_the_worker(server_fixture: ServerFixture, server: LiveServer) -> tuple[str, str, int]:
    """A job that has a timeout, one that has none, and their worker, which is stopped while both run."""
    gate = {"gate": str(server_fixture.folder / "gate")}
    timed, patient = server.submit("steady", gate, timeout_s=2), server.submit("steady", gate)
    until(lambda: all(server.job(each)["progress"] for each in (timed, patient)), "both run")
    (worker,) = server_fixture.pids_of_role("worker")
    os.kill(worker, signal.SIGSTOP)
    return timed, patient, worker


@pytest.mark.slow
@pytest.mark.timed
def test_a_worker_that_hangs_is_replaced_and_the_timeouts_of_its_jobs_strike(
    server_fixture: ServerFixture,
) -> None:
    server = server_fixture.start(executors=2)
    timed, patient, hung = stop_the_worker(server_fixture, server)
    stopped_at, told = time.monotonic(), set[str]()

    def is_replaced() -> bool:
        state, parts = status(server)
        told.add(state)
        assert state == "ok" or parts["device cpu"]["state"] == "degraded"
        return server_fixture.pids_of_role("worker") not in ([hung], [])

    until(is_replaced, "it is replaced", within_s=REPLACED_S)
    assert time.monotonic() - stopped_at <= REPLACED_S
    assert told == {"ok", "degraded"}
    job = server.wait_for_end(timed)
    assert (job["state"], job["error"]["code"]) == ("failed", "timeout"), job
    (server_fixture.folder / "gate").touch()
    job = server.wait_for_end(patient)
    assert (job["state"], job["output"]["attempt"], job["retries_left"]) == ("succeeded", 2, 0), job
    assert server.attempts(patient)[0]["error"]["code"] == "interrupted"
    until(lambda: status(server)[0] == "ok", "all is well again")


def with_mutation(folder: Path, stack: ExitStack, changes: Sequence[Change]) -> ServerFixture:
    server_fixture = ServerFixture(folder, tree=mutated(folder, changes))
    stack.callback(server_fixture.close)
    return server_fixture


@pytest.mark.slow
def test_without_the_watch_a_hung_worker_keeps_its_jobs(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server_fixture = with_mutation(tmp_path, stack, [removed("hung-worker-replaced")])
        server = server_fixture.start(executors=2)
        timed, _, hung = stop_the_worker(server_fixture, server)
        until(lambda: status(server)[0] == "degraded", "it is missed")
        wait_until_stable(lambda: server_fixture.pids_of_role("worker"), "nothing is done", for_s=REPLACED_S)
        assert server_fixture.pids_of_role("worker") == [hung]
        assert server.job(timed)["state"] == "running"


@pytest.mark.slow
def test_without_the_coordinators_look_at_the_time_no_timeout_strikes(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server_fixture = with_mutation(tmp_path, stack, [never("timeout-of-hung-worker")])
        server = server_fixture.start(executors=2)
        timed, _, _ = stop_the_worker(server_fixture, server)
        until(lambda: server.attempts(timed)[0]["ended_at"], "the attempt ends", within_s=REPLACED_S)
        assert server.attempts(timed)[0]["error"]["code"] == "interrupted"


@pytest.mark.slow
@pytest.mark.timed
def test_a_writer_that_hangs_is_replaced_and_the_server_takes_jobs_again(
    server_fixture: ServerFixture,
) -> None:
    server = server_fixture.start()
    assert server.wait_for_end(server.submit("echo", {}))["state"] == "succeeded"
    (hung,) = server_fixture.pids_of_role("writer")
    os.kill(hung, signal.SIGSTOP)
    until(lambda: status(server)[0] != "ok", "it is missed")
    until(
        lambda: server_fixture.pids_of_role("writer") not in ([hung], []),
        "it is replaced",
        within_s=REPLACED_S,
    )
    until(lambda: status(server)[0] == "ok", "all is well again")
    assert server.wait_for_end(server.submit("echo", {}))["state"] == "succeeded"
