"""Effect: jobs that are to wait longer than any calendar reaches, at the door and in the data folder."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import Any

import msgspec
import pytest

from runner.jobs.job import Job
from runner.jobs.job_query import JobQuery
from runner.jobs.retry import Backoff
from runner.stores.sqlite.sqlite_store import SqliteStore
from runner.stores.store import WriteBatch
from tests.faults.server_fixture import LiveServer, ServerFixture, until

pytestmark = pytest.mark.slow

#: Options of a submit, and where their fault is.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"timeout_s": 0.05, "retries": 1, "backoff": 1e18}, "/backoff"),
    ({"retries": 1, "backoff": [1, 1e18]}, "/backoff"),
    ({"retries": 1, "backoff": {"kind": "fixed", "base_s": 2.6e11, "max_s": 2.6e11}}, "/backoff"),
    ({"backoff": {"max_s": 1e18}}, "/backoff"),
    ({"run_at": "9999-12-31T23:59:59.9999999Z"}, "/run_at"),
    ({"run_at": "9999-12-31T23:59:59-23:59"}, "/run_at"),
    ({"run_at": "2999-01-01T00:00:00Z"}, "/run_at"),
    ({"delay_s": 1e18}, "/delay_s"),
    ({"timeout_s": 1e18}, "/timeout_s"),
    ({"queue_timeout_s": 1e18}, "/queue_timeout_s"),
]
#: Beyond year 9999, about and beyond 64 bits in milliseconds.
LATE_S = (2.6e11, 9.3e15, 1e18, 1e300)
#: Far less than the 30 s after which a front gives up.
SOON_S = 2.0


def listed(server: LiveServer) -> dict[str, str]:
    """Id and state of every job; the list answers."""
    return {job["id"]: job["state"] for job in server.jobs()}


def stop(server: LiveServer) -> None:
    server.signal(signal.SIGTERM)
    assert server.exit_code(within_s=10) == 0


def test_a_wait_beyond_ten_years_is_refused_at_every_door(server_fixture: ServerFixture) -> None:
    server = server_fixture.start()
    for options, pointer in REFUSED:
        started = time.monotonic()
        answer = server.http.post("/v1/jobs", json={"handler": "nap", "input": {"s": 5}, **options})
        assert answer.status_code == 422, (options, answer.status_code, answer.text)
        assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer], options
        assert time.monotonic() - started <= SOON_S, options
    ids = [
        server.submit("put_off", how, backoff=0)
        for how in ({"after": 1e16}, {"after": 2.6e11}, {"at": "9999-12-31T23:59:59.999999+00:00"})
    ]
    for job_id in ids:
        job = server.wait_for_end(job_id)
        assert (job["state"], job["error"]["code"], job["attempt"]) == ("failed", "handler_error", 2), job
        assert "at most ten years" in job["error"]["message"]
    assert listed(server) == dict.fromkeys(ids, "failed")
    stop(server)
    server = server_fixture.start()
    assert listed(server) == dict.fromkeys(ids, "failed")
    assert server.wait_for_end(server.submit("echo"))["state"] == "succeeded"


def test_stored_times_beyond_any_calendar_cost_neither_start_nor_lists(server_fixture: ServerFixture) -> None:
    """What an older version has taken in: of three jobs for each time one waits for its retry, one has to
    start by then, and one fails now and would wait so long by its backoff."""
    server = server_fixture.start()
    told = {"retries": 1, "delay_s": 600}
    sets = [[server.submit("stumble", {"fails": 1, "s": 0}, **told) for _ in range(3)] for _ in LATE_S]
    every = [job_id for ids in sets for job_id in ids]
    stop(server)
    store = SqliteStore(str(server_fixture.data / "runner.db"))
    epoch = store.take_epoch()
    jobs = {job.id: job for job in store.find_jobs(JobQuery())}
    for late, ids in zip(LATE_S, sets, strict=True):
        store.commit(epoch, WriteBatch(updates=_spoilt(late, [jobs[job_id] for job_id in ids])))
    store.close()
    server = server_fixture.start()
    for waits, _, fails in sets:
        until(partial(_waits_again, server, fails), "it has failed once")
        assert server.job(waits)["ready_at"] == "9999-12-31T23:59:59.000Z"
        assert server.http.get(f"/v1/jobs/{waits}/explain").status_code == 200
    assert listed(server) == dict.fromkeys(every, "queued")
    stop(server)
    server = server_fixture.start()
    assert listed(server) == dict.fromkeys(every, "queued")
    for job_id in every:
        assert server.http.post(f"/v1/jobs/{job_id}/cancel").status_code in (200, 202)
        assert server.wait_for_end(job_id)["state"] == "cancelled"
    assert listed(server) == dict.fromkeys(every, "cancelled")
    assert server.wait_for_end(server.submit("echo"))["state"] == "succeeded"


def _waits_again(server: LiveServer, job_id: str) -> bool:
    return bool(server.job(job_id)["reason"] == "retry_backoff")


def _spoilt(late: float, jobs: list[Job]) -> list[Job]:
    waits, limited, fails = jobs
    replace = msgspec.structs.replace
    backoff = Backoff("fixed", late, late)
    return [
        replace(waits, ready_at=late, reason="retry_backoff"),
        replace(limited, terms=replace(limited.terms, queue_timeout_s=late)),
        replace(fails, ready_at=1.0, reason=None, terms=replace(fails.terms, backoff=backoff)),
    ]
