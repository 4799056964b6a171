"""Effect: a worker stops reading its link, or comes with another version of the program."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.failpoint_sweep import FailpointCase, FailpointLane, has_ended
from tests.faults.mutate import mutate, mutated, value
from tests.faults.server_fixture import LiveServer, ServerFixture, until

#: A few frames instead of ten thousand may wait for one worker.
FEW = value("frames-high-water", "10")
TOLD = "uses protocol 2, this server 1: the installed program was replaced; restart the server"
NEWER = value("protocol", "2")


def another_worker(server_fixture: ServerFixture, old: int) -> int | None:
    return next((pid for pid in server_fixture.pids_of_role("worker") if pid != old), None)


@pytest.mark.slow
def test_a_worker_that_reads_nothing_is_replaced_and_its_jobs_go_on(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, [FEW]))
    try:
        server, gate = server_fixture.start(), tmp_path / "gate"
        kept, doomed = (server.submit("steady", {"gate": str(gate)}, timeout_s=60) for _ in range(2))
        until(lambda: all(server.job(job_id)["progress"] for job_id in (kept, doomed)), "two jobs run")
        (worker,) = server_fixture.pids_of_role("worker")
        os.kill(worker, signal.SIGSTOP)
        # Each asks for a frame to it; what it does not take is neither kept for ever nor dropped in silence.
        until(
            lambda: _ask_to_stop(server, doomed) and another_worker(server_fixture, worker), "it is replaced"
        )
        gate.touch()
        assert server.wait_for_end(doomed)["state"] == "cancelled"
        job = server.wait_for_end(kept)
        assert (job["state"], job["output"]["attempt"]) == ("succeeded", 2)
        assert server.attempts(kept)[0]["error"]["code"] == "interrupted"
        assert "takes no messages: it is replaced" in server.log.read_text()
    finally:
        server_fixture.close()


def _ask_to_stop(server: LiveServer, job_id: str) -> bool:
    for _ in range(20):
        body = {"reason": "not wanted " * 80}
        assert server.http.post(f"/v1/jobs/{job_id}/cancel", json=body).status_code in (200, 202, 409)
    return True


@pytest.mark.slow
def test_a_worker_of_another_version_is_refused_in_words_and_the_server_goes_on(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, []))
    try:
        server = server_fixture.start()
        assert server.wait_for_end(server.submit("echo", {"a": 1}))["state"] == "succeeded"
        mutate(server_fixture.tree, [NEWER])
        (worker,) = server_fixture.pids_of_role("worker")
        os.kill(worker, signal.SIGKILL)
        until(lambda: TOLD in server.log.read_text(), "it is told of")
        waiting = server.submit("echo", {"b": 2})
        server.process.terminate()
        assert server.exit_code(within_s=5) == 0
        # As the words say.
        server = server_fixture.start()
        assert server.wait_for_end(waiting)["output"] == {"b": 2}
    finally:
        server_fixture.close()


@pytest.mark.slow
def test_a_promise_that_was_lost_with_the_link_is_made_again(tmp_path: Path) -> None:
    """Nobody would ask for a smaller one: the executor would go on within what others may have by now."""

    def learn(lane: FailpointLane) -> None:
        ended = []
        for _ in range(2):
            job_id = lane.submit("frugal_on_gpu")
            ended.append(lane.await_job(job_id, has_ended, "it ends")["output"])
            until(lane.has_fired, "it was promised less, once its need is known", within_s=lane.end_s)
        first, second = ended
        assert second["pid"] == first["pid"]
        assert second["granted"] < first["granted"] / 2

    lane = FailpointLane(tmp_path / "lane", gpus="sim:1x24GiB")
    try:
        lane.run(FailpointCase("coordinator>worker.SetGrant", "cut"), learn)
        lane.end()
    finally:
        lane.close()
