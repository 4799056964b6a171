"""The running server: which job starts when, and why the others wait."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runner.formats.timestamps import format_rfc3339
from tests.faults.server_fixture import LiveServer
from tests.runner.coordinator.server_client import (
    error_code,
    parse_time,
    post,
    set_paused,
    wait_for_reason,
    wait_until_running,
)


def test_jobs_start_by_priority_then_in_order_of_arrival(server: LiveServer) -> None:
    set_paused(server, "order", True)
    wanted = [50, 90, 50, 10, 90, 50]
    ids = [server.submit("one", queue="order", priority=priority) for priority in wanted]
    assert all(server.job(job_id)["reason"] == "paused" for job_id in ids)
    set_paused(server, "order", False)
    jobs = [server.wait_for_end(job_id) for job_id in ids]
    told = sorted(range(6), key=lambda each: parse_time(jobs[each]["started_at"]))
    by_start = sorted(told, key=lambda each: (parse_time(jobs[each]["started_at"]), -wanted[each], each))
    assert by_start == [1, 4, 0, 2, 5, 3]


@pytest.mark.timed
def test_a_delayed_job_is_scheduled_and_then_runs(server: LiveServer) -> None:
    delayed = server.submit("echo", delay_s=0.4)
    timed = server.submit("echo", run_at=format_rfc3339(time.time() + 0.4))
    for job_id in (delayed, timed):
        assert (server.job(job_id)["state"], server.job(job_id)["reason"]) == ("queued", "scheduled")
        explained = server.http.get(f"/v1/jobs/{job_id}/explain").json()
        assert explained["reason"] == "scheduled" and explained["message"]
    for job_id in (delayed, timed):
        job = server.wait_for_end(job_id)
        assert job["state"] == "succeeded"
        assert 0 <= parse_time(job["started_at"]) - parse_time(job["ready_at"]) < 0.5
        assert parse_time(job["ready_at"]) - parse_time(job["created_at"]) > 0.3


@pytest.mark.timed
def test_who_waits_too_long_fails_with_what_it_waited_for(server: LiveServer) -> None:
    set_paused(server, "never", True)
    job_id = server.submit("echo", queue="never", queue_timeout_s=0.3)
    job = server.wait_for_end(job_id)
    assert (job["state"], job["reason"], error_code(job)) == ("failed", "queue_timeout", "queue_timeout")
    assert "paused" in job["error"]["message"] and job["started_at"] is None and job["attempt"] == 0
    assert parse_time(job["finished_at"]) - parse_time(job["created_at"]) < 1.0
    # What runs in time is not touched by it.
    assert server.wait_for_end(server.submit("echo", queue_timeout_s=5))["state"] == "succeeded"


def test_queue_timeout_counts_from_the_moment_it_may_start(server: LiveServer) -> None:
    job = server.wait_for_end(server.submit("echo", delay_s=0.5, queue_timeout_s=0.3))
    assert job["state"] == "succeeded"


def test_a_retried_job_gets_its_whole_time_to_wait_again(server: LiveServer) -> None:
    set_paused(server, "late", True)
    job_id = server.submit("echo", queue="late", queue_timeout_s=0.3)
    assert error_code(server.wait_for_end(job_id)) == "queue_timeout"
    post(server, f"/jobs/{job_id}/retry")
    assert server.job(job_id)["state"] == "queued"
    assert error_code(server.wait_for_end(job_id)) == "queue_timeout"
    set_paused(server, "late", False)
    post(server, f"/jobs/{job_id}/retry")
    assert server.wait_for_end(job_id)["state"] == "succeeded"
    set_paused(server, "late", True)
    post(server, f"/jobs/{job_id}/retry")
    assert error_code(server.wait_for_end(job_id)) == "queue_timeout"


def test_no_more_of_a_handler_run_than_its_limit(server: LiveServer, gate: Path) -> None:
    first = server.submit("one", {"gate": str(gate)})
    wait_until_running(server, first)
    second = server.submit("one", {"gate": str(gate)})
    assert wait_for_reason(server, second, "concurrency_limit")["state"] == "queued"
    assert server.http.get("/v1/queues/default").json()["reasons"]["concurrency_limit"] == 1
    explained = server.http.get(f"/v1/jobs/{second}/explain").json()
    assert explained["reason"] == "concurrency_limit"
    assert "at its concurrency limit" in explained["message"]
    gate.touch()
    assert parse_time(server.wait_for_end(second)["started_at"]) >= parse_time(
        server.wait_for_end(first)["finished_at"]
    )


def test_a_paused_queue_lets_running_jobs_end_and_starts_none(server: LiveServer, gate: Path) -> None:
    running = server.submit("steady", {"gate": str(gate)}, queue="halt")
    wait_until_running(server, running)
    set_paused(server, "halt", True)
    waiting = server.submit("echo", queue="halt")
    gate.touch()
    assert server.wait_for_end(running)["state"] == "succeeded"
    assert server.job(waiting)["reason"] == "paused"
    queue = server.http.get("/v1/queues/halt").json()
    assert queue["paused"] and queue["reasons"] == {"paused": 1} and queue["counts"]["queued"] == 1
    assert server.wait_for_end(server.submit("echo"))["state"] == "succeeded"
    set_paused(server, "halt", False)
    assert server.wait_for_end(waiting)["state"] == "succeeded"


def test_short_jobs_do_not_wait_behind_one_that_turns_out_long(server: LiveServer, gate: Path) -> None:
    for job_id in server.submit_many("steady", [{}] * 40):
        server.wait_for_end(job_id)
    # Known to be short by now, several are handed to one executor, the long one among them.
    long, *short = server.submit_many("steady", [{"gate": str(gate)}, *[{}] * 30])
    wait_until_running(server, long)
    later = server.submit_many("steady", [{}] * 60)
    for job_id in (*short, *later):
        job = server.wait_for_end(job_id, within_s=4)
        assert (job["state"], job["attempt"]) == ("succeeded", 1)
    assert server.job(long)["state"] == "running"
    gate.touch()
    assert server.wait_for_end(long)["attempt"] == 1
