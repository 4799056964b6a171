"""The running server: no attempt takes longer than it may, and every end has its code."""

from __future__ import annotations

import pytest

from tests.faults.server_fixture import LiveServer, until
from tests.runner.coordinator.server_client import error_code, executors, parse_time, wait_until_running


@pytest.mark.timed
@pytest.mark.parametrize("handler", ["steady", "async_nap", "deaf"])
def test_a_run_that_takes_too_long_is_ended_within_two_seconds(server: LiveServer, handler: str) -> None:
    job = server.wait_for_end(server.submit(handler, {"gate": "/nowhere"}, timeout_s=0.4))
    assert (job["state"], error_code(job), job["attempt"]) == ("failed", "timeout", 1)
    assert 0.4 <= parse_time(job["finished_at"]) - parse_time(job["started_at"]) < 2.4
    assert "0.4" in job["error"]["message"]


def test_a_timed_out_attempt_is_retried_like_a_failure(server: LiveServer) -> None:
    job = server.wait_for_end(
        server.submit("steady", {"gate": "/nowhere"}, timeout_s=0.2, retries=1, backoff=0.05)
    )
    assert (error_code(job), job["attempt"], job["retries_left"]) == ("timeout", 2, 0)


@pytest.mark.timed
def test_silence_beyond_its_limit_is_stalled(server: LiveServer) -> None:
    job_id = server.submit("silent")
    job = server.wait_for_end(job_id)
    assert (job["state"], error_code(job)) == ("failed", "stalled")
    # It spoke every 0.2 s at first, which is not silence.
    (attempt,) = server.attempts(job_id)
    assert 0.7 < parse_time(attempt["ended_at"]) - parse_time(attempt["started_at"]) < 4


def test_a_load_beyond_its_limit_is_load_timeout(server: LiveServer) -> None:
    job_id = server.submit("slow_load")
    job = server.wait_for_end(job_id)
    assert (job["state"], error_code(job)) == ("failed", "load_timeout")
    assert server.attempts(job_id)[0]["run_s"] is None
    assert not executors(server, "slow_load")


def test_a_failing_load_is_a_load_error(server: LiveServer) -> None:
    job = server.wait_for_end(server.submit("bad_load"))
    assert (job["state"], error_code(job)) == ("failed", "load_error")
    assert "no weights" in job["error"]["message"]


def test_executors_live_as_long_as_their_keep_alive(server: LiveServer) -> None:
    for handler in ("at_once", "brief", "pinned"):
        server.wait_for_end(server.submit(handler))
    until(lambda: not executors(server, "at_once"), "it is unloaded at once", within_s=2)
    until(lambda: not executors(server, "brief"), "it is unloaded a little later", within_s=3)
    (kept,) = executors(server, "pinned")
    assert (kept["state"], kept["jobs_done"]) == ("idle", 1)


def test_a_warm_executor_is_used_again(server: LiveServer) -> None:
    first = server.wait_for_end(server.submit("who"))
    again = [server.wait_for_end(server.submit("who")) for _ in range(3)]
    assert {job["output"] for job in again} == {first["output"]}
    assert server.attempts(again[-1]["id"])[0]["load_s"] is None
    assert server.attempts(first["id"])[0]["load_s"] > 0


def test_an_executor_is_replaced_after_its_number_of_jobs(server: LiveServer) -> None:
    pids = [server.wait_for_end(server.submit("worn"))["output"] for _ in range(5)]
    assert pids[0] == pids[1] and pids[2] == pids[3] and len(set(pids)) == 3


def test_a_job_that_runs_says_so_and_where(server: LiveServer) -> None:
    job_id = server.submit("steady", {"gate": "/nowhere"})
    job = wait_until_running(server, job_id)
    assert (job["state"], job["attempt"], job["devices"]) == ("running", 1, ["cpu"])
    assert job["progress"]["fraction"] == 0 and job["finished_at"] is None and job["output"] is None
    assert server.http.post(f"/v1/jobs/{job_id}/cancel", json={}).status_code == 202
    server.wait_for_end(job_id)
