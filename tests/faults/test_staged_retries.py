"""Effect: retries of short jobs are staged behind one that turns out to be long, and are given back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.server_fixture import ServerFixture, until

SHORT = 60
LONG = 20


@pytest.mark.slow
def test_a_retry_that_was_given_back_before_it_began_is_no_start(server_fixture: ServerFixture) -> None:
    server = server_fixture.start(executors=1)
    for job_id in server.submit_many("stumble", [{"fails": 0, "s": 0}] * 100):
        server.wait_for_end(job_id)
    jobs: list[dict[str, Any]] = [{"fails": 1, "s": 0}] * (SHORT // LONG) + [{"fails": 0, "s": 0.06}]
    ids = server.submit_many("stumble", jobs * LONG, retries=1, backoff=0.1)
    until(lambda: server.counts().get("succeeded") == 100 + len(ids), "all have ended", within_s=20)
    for job_id, data in zip(ids, jobs * LONG, strict=True):
        job = server.job(job_id)
        assert (job["attempt"], job["output"]) == (data["fails"] + 1, {"attempt": data["fails"] + 1})
        assert all(attempt["ended_at"] for attempt in server.attempts(job_id))
