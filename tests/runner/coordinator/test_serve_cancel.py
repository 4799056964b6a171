"""The running server: cancel, retry and delete, whatever the job is doing."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import httpx2
import pytest

from tests.faults.server_fixture import LiveServer, until
from tests.runner.coordinator.server_client import (
    error_code,
    executors,
    parse_time,
    post,
    set_paused,
    wait_for_reason,
    wait_until_running,
)


def test_a_waiting_job_is_cancelled_at_once(server: LiveServer) -> None:
    set_paused(server, "shut", True)
    for options in ({"queue": "shut"}, {"delay_s": 60}):
        job_id = server.submit("echo", **options)
        job = post(server, f"/jobs/{job_id}/cancel", {"reason": "not needed"}, status=200)
        assert (job["state"], job["error"]) == ("cancelled", {"code": "cancelled", "message": "not needed"})
        assert server.job(job_id)["state"] == "cancelled" and server.job(job_id)["attempt"] == 0


def test_a_loading_job_is_cancelled_with_its_executor(server: LiveServer) -> None:
    job_id = server.submit("gated_load")
    wait_for_reason(server, job_id, "loading")
    assert post(server, f"/jobs/{job_id}/cancel")["reason"] in ("cancelling", "cancelled")
    job = server.wait_for_end(job_id, within_s=3)
    assert (job["state"], error_code(job)) == ("cancelled", "cancelled")
    until(lambda: not executors(server, "gated_load"), "its executor is gone")


@pytest.mark.parametrize("handler", ["steady", "async_nap"])
def test_a_willing_job_is_cancelled_soon_and_its_executor_stays(server: LiveServer, handler: str) -> None:
    job_id = server.submit(handler, {"gate": "/nowhere"})
    wait_until_running(server, job_id)
    # It may have ended by the time that the answer is made.
    assert post(server, f"/jobs/{job_id}/cancel", {"reason": "enough"})["reason"] in (
        "cancelling",
        "cancelled",
    )
    job = server.wait_for_end(job_id, within_s=2)
    assert (job["state"], job["error"]["message"], job["output"]) == ("cancelled", "enough", None)
    assert [each["error"]["code"] for each in server.attempts(job_id)] == ["cancelled"]
    assert executors(server, handler)


def test_a_deaf_job_is_killed(server: LiveServer) -> None:
    job_id = server.submit("deaf")
    wait_until_running(server, job_id)
    post(server, f"/jobs/{job_id}/cancel")
    # A second word changes nothing, least of all the reason.
    post(server, f"/jobs/{job_id}/cancel", {"reason": "again"})
    job = server.wait_for_end(job_id, within_s=4)
    assert (job["state"], job["attempt"]) == ("cancelled", 1)
    assert job["error"]["message"] == "cancelled by request"
    until(lambda: not executors(server, "deaf"), "its executor is gone")


def test_force_does_not_wait_for_the_ladder(server: LiveServer) -> None:
    job_id = server.submit("deaf")
    wait_until_running(server, job_id)
    post(server, f"/jobs/{job_id}/cancel", {"force": True, "reason": "now"})
    job = server.wait_for_end(job_id, within_s=1)
    assert (job["state"], job["error"]["message"]) == ("cancelled", "now")


def test_a_cancelled_job_is_not_retried(server: LiveServer) -> None:
    job_id = server.submit("steady", {"gate": "/nowhere"}, retries=3)
    wait_until_running(server, job_id)
    post(server, f"/jobs/{job_id}/cancel")
    job = server.wait_for_end(job_id, within_s=2)
    assert (job["state"], job["attempt"]) == ("cancelled", 1)


def test_an_ended_job_cannot_be_cancelled(server: LiveServer) -> None:
    job_id = server.submit("echo")
    server.wait_for_end(job_id)
    assert post(server, f"/jobs/{job_id}/cancel", status=409)["code"] == "already_finished"
    assert server.job(job_id)["state"] == "succeeded"
    assert (
        post(server, f"/jobs/{'0' * 8}-0000-7000-8000-{'0' * 12}/cancel", status=404)["code"] == "not_found"
    )


def test_a_retried_job_goes_on_under_its_id(server: LiveServer) -> None:
    job_id = server.submit("files", {"names": ["a.bin"]})
    first = server.wait_for_end(job_id)
    before = list(server.events(job_id))
    job = post(server, f"/jobs/{job_id}/retry")
    assert (job["id"], job["error"]) == (job_id, None) and job["state"] != "failed"
    again = server.wait_for_end(job_id)
    assert (again["state"], again["attempt"]) == ("succeeded", 2)
    assert again["output"]["id"] != first["output"]["id"]
    after = list(server.events(job_id, after=before[-1].id))
    assert [event.id for event in after if event.id] == list(
        range(before[-1].id + 1, after[-1].id + 1)  # type: ignore[operator]
    )
    assert after[-1].name == "done" and [each["attempt"] for each in server.attempts(job_id)] == [1, 2]


def test_earlier_output_is_gone_when_a_job_runs_again(server: LiveServer, gate: Path, tmp_path: Path) -> None:
    gate.touch()
    job_id = server.submit("steady", {"gate": str(gate)})
    assert server.wait_for_end(job_id)["output"] == {"attempt": 1}
    gate.unlink()
    post(server, f"/jobs/{job_id}/retry")
    job = wait_until_running(server, job_id)
    assert (job["output"], job["output_bytes"], job["finished_at"]) == (None, None, None)
    assert server.http.get(f"/v1/jobs/{job_id}/output").json()["code"] == "job_not_finished"
    refused = post(server, f"/jobs/{job_id}/retry", status=409)
    assert refused["code"] == "job_not_finished"
    assert server.http.delete(f"/v1/jobs/{job_id}").status_code == 409
    gate.touch()
    assert server.wait_for_end(job_id)["output"] == {"attempt": 2}


def test_a_deleted_job_is_gone_with_all_that_was_its(server: LiveServer) -> None:
    job_id = server.submit("files", {"names": ["a.bin"]})
    server.wait_for_end(job_id)
    assert server.http.get(f"/v1/jobs/{job_id}/files/a.bin").status_code == 200
    counts = server.counts()
    answer = server.http.delete(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    for path in ("", "/events", "/output", "/attempts", "/explain", "/files/a.bin"):
        assert server.http.get(f"/v1/jobs/{job_id}{path}").status_code == 404, path
    assert server.http.delete(f"/v1/jobs/{job_id}").status_code == 404
    assert job_id not in [job["id"] for job in server.jobs(handler="files")]
    assert server.counts()["succeeded"] == counts["succeeded"] - 1
    assert not list(server.log.parent.glob(f"files/{job_id}"))


def test_a_waiting_job_may_be_deleted(server: LiveServer) -> None:
    job_id = server.submit("echo", delay_s=60)
    assert server.http.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert server.http.get(f"/v1/jobs/{job_id}").status_code == 404


def test_many_who_delete_and_retry_one_job_at_once_get_one_outcome(server: LiveServer) -> None:
    """Whoever is first wins; the counts stay true."""

    async def rush(job_id: str) -> list[int]:
        async with httpx2.AsyncClient(base_url=server.url, trust_env=False) as http:
            asks = [http.delete(f"/v1/jobs/{job_id}") for _ in range(4)]
            asks[2:2] = [http.post(f"/v1/jobs/{job_id}/retry", json={}) for _ in range(4)]
            return [answer.status_code for answer in await asyncio.gather(*asks)]

    for _ in range(5):
        job_id = server.submit("echo", queue="rush")
        server.wait_for_end(job_id)
        statuses = asyncio.run(rush(job_id))
        assert set(statuses) <= {202, 204, 404, 409} and statuses.count(204) <= 1, statuses
        if 204 not in statuses:
            server.wait_for_end(job_id)
            assert server.http.delete(f"/v1/jobs/{job_id}").status_code == 204
        assert server.http.get(f"/v1/jobs/{job_id}").status_code == 404
    assert set(server.counts("rush").values()) == {0}


def test_the_moments_of_a_job_are_in_order(server: LiveServer) -> None:
    job = server.wait_for_end(server.submit("echo"))
    moments = [parse_time(job[name]) for name in ("created_at", "ready_at", "started_at", "finished_at")]
    assert moments == sorted(moments)


def test_who_reads_a_job_that_is_deleted_gets_its_end(server: LiveServer) -> None:
    job_id = server.submit("echo", delay_s=60)
    names = []
    for event in server.events(job_id):
        names.append(event.name)
        if event.name == "status":
            assert server.http.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert [name for name in names if name != "waiting"] == ["snapshot", "status", "done"]
    assert server.http.get(f"/v1/jobs/{job_id}/events").status_code == 404


def test_a_cancel_at_any_moment_holds_and_costs_no_executor(server: LiveServer) -> None:
    """Attempts follow each other at once: cancels come before a start is durable, in a run and after it."""
    server.wait_for_end(server.submit("fails", {"until": 1}))
    known = {each["id"] for each in executors(server, "fails")}
    for _ in range(25):
        job_id = server.submit("fails", {"until": 100}, retries=100, backoff=0)
        until(partial(has_failed, server, job_id), "it was tried")
        assert server.http.post(f"/v1/jobs/{job_id}/cancel", json={}).status_code in (200, 202)
        job = server.wait_for_end(job_id, within_s=3)
        assert job["state"] == "cancelled" and job["attempt"] == len(server.attempts(job_id)), job
    assert [each["state"] for each in executors(server, "fails") if each["id"] in known] == ["idle"]


def has_failed(server: LiveServer, job_id: str) -> bool:
    return bool(server.job(job_id)["attempt"])
