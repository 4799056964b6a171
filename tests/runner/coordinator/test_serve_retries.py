"""The running server: what follows a failure, and what no retry can help."""

from __future__ import annotations

import re

import pytest

from tests.faults.server_fixture import LiveServer
from tests.runner.coordinator.server_client import error_code, parse_time, wait_for_reason

#: backoff -> least pauses in seconds before the second, third and fourth attempt (jitter is at most 20 %).
BACKOFFS = [
    (0.1, [0.1, 0.1, 0.1]),
    ([0.05, 0.3], [0.05, 0.3, 0.3]),
    ({"kind": "fixed", "base_s": 0.2, "jitter": 0}, [0.2, 0.2, 0.2]),
    ({"kind": "linear", "base_s": 0.1, "max_s": 0.2, "jitter": 0}, [0.1, 0.2, 0.2]),
    ({"kind": "exponential", "base_s": 0.1, "max_s": 10, "jitter": 0.2}, [0.08, 0.16, 0.32]),
]


@pytest.mark.slow
def test_each_backoff_leaves_its_pauses(server: LiveServer) -> None:
    ids = [server.submit("fails", {"until": 4}, retries=3, backoff=backoff) for backoff, _ in BACKOFFS]
    for job_id, (backoff, pauses) in zip(ids, BACKOFFS, strict=True):
        job = server.wait_for_end(job_id)
        assert (job["state"], job["output"], job["attempt"], job["retries_left"]) == ("succeeded", 4, 4, 0)
        attempts = server.attempts(job_id)
        between = [
            parse_time(attempts[n + 1]["started_at"]) - parse_time(attempts[n]["ended_at"])
            for n in range(len(pauses))
        ]
        for least, seen in zip(pauses, between, strict=True):
            assert least - 0.003 <= seen <= 1.25 * least + 0.3, (backoff, between)


def test_between_attempts_a_job_says_what_it_waits_for(server: LiveServer) -> None:
    job_id = server.submit("fails", {"until": 9}, retries=1, backoff=30)
    job = wait_for_reason(server, job_id, "retry_backoff")
    assert (job["state"], job["attempt"], job["retries_left"], job["error"]) == ("queued", 1, 0, None)
    assert 20 < parse_time(job["ready_at"]) - parse_time(job["started_at"]) < 40
    (attempt,) = server.attempts(job_id)
    assert (
        attempt["error"]["code"] == "handler_error" and "no luck in attempt 1" in attempt["error"]["message"]
    )
    assert job["last_error"]["code"] == "handler_error"
    told = server.http.get(f"/v1/jobs/{job_id}/explain").json()
    assert re.fullmatch(r"attempt 1 failed: .*no luck in attempt 1.*; retry in [0-9.]+ s", told["message"])
    assert told["last_error"] == job["last_error"]
    assert server.http.post(f"/v1/jobs/{job_id}/cancel", json={}).status_code == 200
    assert server.job(job_id)["state"] == "cancelled"


def test_the_last_failure_is_the_jobs_error(server: LiveServer) -> None:
    job = server.wait_for_end(server.submit("fails", {"until": 9}, retries=1, backoff=0.05))
    assert (job["state"], job["attempt"], job["retries_left"]) == ("failed", 2, 0)
    assert job["error"]["code"] == job["reason"] == "handler_error"
    assert "no luck in attempt 2" in job["error"]["message"] and job["error"]["retryable"] is True
    assert job["output"] is None


@pytest.mark.timed
@pytest.mark.parametrize("how", ["after", "at"])
def test_a_handler_names_its_next_start(server: LiveServer, how: str) -> None:
    job_id = server.submit("again", {"how": how})
    job = server.wait_for_end(job_id)
    assert (job["state"], job["output"]) == ("succeeded", 2)
    first, second = server.attempts(job_id)
    assert 0.3 <= parse_time(second["started_at"]) - parse_time(first["ended_at"]) < 1.0


def test_a_permanent_error_is_final(server: LiveServer) -> None:
    job = server.wait_for_end(server.submit("never"))
    assert (job["state"], error_code(job), job["attempt"]) == ("failed", "permanent_error", 1)
    assert job["error"]["message"] == "404" and job["error"]["retryable"] is False


def test_the_models_own_rules_have_the_last_word(server: LiveServer) -> None:
    refused = server.http.post("/v1/jobs", json={"handler": "even", "input": {"number": "2"}})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/input/number"
    job = server.wait_for_end(server.submit("even", {"number": 3}, retries=2))
    assert (job["state"], error_code(job), job["attempt"]) == ("failed", "invalid_input", 1)
    assert "must be even" in str(job["error"])
    assert server.wait_for_end(server.submit("even", {"number": 4}))["output"] == 2


def test_what_json_cannot_hold_is_no_result(server: LiveServer) -> None:
    for kind in ("nan", "object", "half", "key"):
        job = server.wait_for_end(server.submit("result", {"kind": kind}))
        assert (job["state"], error_code(job)) == ("failed", "result_not_serialisable"), (kind, job)


def test_a_result_has_a_bound(server: LiveServer) -> None:
    job = server.wait_for_end(server.submit("result", {"kind": str(1 << 20)}))
    assert (job["state"], error_code(job)) == ("failed", "result_too_large")
    fits = server.wait_for_end(server.submit("result", {"kind": str((1 << 20) - 2)}))
    assert fits["state"] == "succeeded" and fits["output_bytes"] == 1 << 20
