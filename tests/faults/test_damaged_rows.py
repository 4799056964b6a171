"""Effect: rows of the store hold garbage; the server starts, answers and works on, all but those jobs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import apsw
import httpx2
import pytest

from tests.faults.server_fixture import LiveServer, ServerFixture, until
from tests.runner.stores.sqlite.test_damaged_rows import GARBAGE, JOB_COLUMNS, OTHER_COLUMNS, damage

ENDED_STATES = ("succeeded", "failed", "cancelled")


def number_of(database: Path, job_id: str) -> int:
    connection = apsw.Connection(str(database))
    try:
        ((number,),) = connection.execute("SELECT n FROM jobs WHERE id = ?", (job_id,)).fetchall()
        return int(str(number))
    finally:
        connection.close()


def fill(server: LiveServer) -> dict[str, list[str]]:
    """Jobs of each kind, by kind: ended ones, ones for later, and ones that wait in a paused queue."""
    ended = server.submit_many("nap", [{"k": k} for k in range(6)])
    for job_id in ended:
        server.wait_for_end(job_id)
    assert server.http.put("/v1/queues/held", json={"paused": True}).status_code == 200
    waiting = server.submit_many("nap", [{"k": k} for k in range(6)], queue="held")
    later = server.submit_many("nap", [{"k": k} for k in range(3)], delay_s=3600)
    return {"ended": ended, "waiting": waiting, "later": later}


def touch_all(server: LiveServer, job_ids: list[str]) -> None:
    """All that can be asked of a job is answered, whatever is in its row."""
    for job_id in job_ids:
        for document in ("", "/output", "/attempts", "/explain"):
            answer = server.http.get(f"/v1/jobs/{job_id}{document}")
            assert answer.status_code in (200, 404, 409, 410), answer.text
            assert answer.json()
    for query in ("", "?state=queued", "?order=asc&limit=2", "?state=failed&reason=invalid_input"):
        answer = server.http.get(f"/v1/jobs{query}")
        assert answer.status_code == 200 and isinstance(answer.json()["data"], list), answer.text


def refused(server: LiveServer, job_id: str) -> httpx2.Response | None:
    """The answer of a GET once the job has been found damaged."""
    answer = server.http.get(f"/v1/jobs/{job_id}")
    return answer if answer.status_code == 410 else None


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[ServerFixture]:
    made = ServerFixture(tmp_path)
    yield made
    made.close()


def test_damaged_jobs_answer_410_until_they_are_deleted(fixture: ServerFixture) -> None:
    server = fixture.start()
    jobs = fill(server)
    database = fixture.data / "runner.db"
    numbers = {job_id: number_of(database, job_id) for ids in jobs.values() for job_id in ids}
    fixture.kill(server)
    broken = {
        jobs["ended"][0]: ("jobs", "body", b"\xc1"),
        jobs["ended"][1]: ("outputs", "body", "{"),
        jobs["waiting"][0]: ("jobs", "traits", "[null"),
        jobs["waiting"][1]: ("jobs", "body", b"\xc1"),
        jobs["waiting"][2]: ("jobs", "priority", 51),
        jobs["waiting"][3]: ("inputs", "body", b"\xff"),
        jobs["later"][0]: ("jobs", "ready_at", "soon"),
    }
    for job_id, (table, column, value) in broken.items():
        assert damage(database, table, column, numbers[job_id], value)

    server = fixture.start()
    assert server.http.post("/v1/queues/held/resume").status_code == 200
    # The jobs of the same class are not held up by the damaged ones before them.
    for job_id in jobs["waiting"][4:]:
        assert server.wait_for_end(job_id)["state"] == "succeeded"
    fresh = server.submit("nap", queue="held")
    assert server.wait_for_end(fresh)["state"] == "succeeded"
    for job_id in broken:
        answer = until(partial(refused, server, job_id), f"{job_id} is damaged")
        assert answer.json()["code"] == "damaged" and job_id in answer.json()["detail"]
        assert server.http.post(f"/v1/jobs/{job_id}/cancel").status_code == 410
        assert server.http.post(f"/v1/jobs/{job_id}/retry").status_code == 410
    page = server.http.get("/v1/jobs", params={"limit": 500}).json()
    assert {job["id"] for job in page["data"]} == (numbers.keys() | {fresh}) - broken.keys()
    assert set(page["damaged"]) == broken.keys()
    ready = server.http.get("/readyz")
    assert ready.status_code == 200 and ready.json()["status"] == "ok"
    assert ready.json()["parts"]["damaged jobs"]["count"] == len(broken)
    for job_id in broken:
        assert server.http.delete(f"/v1/jobs/{job_id}").status_code == 204
        assert server.http.get(f"/v1/jobs/{job_id}").status_code == 404
    assert "damaged jobs" not in server.http.get("/readyz").json()["parts"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_no_garbage_in_any_column_stops_the_server(fixture: ServerFixture, seed: int) -> None:
    server = fixture.start()
    chance = random.Random(seed)
    database = fixture.data / "runner.db"
    jobs = fill(server)
    job_ids = [job_id for ids in jobs.values() for job_id in ids]
    for _ in range(3):
        numbers = [number_of(database, job_id) for job_id in job_ids]
        fixture.kill(server)
        hit = set()
        for index in chance.sample(range(len(job_ids)), len(job_ids) // 2):
            table, column = chance.choice([*(("jobs", name) for name in JOB_COLUMNS), *OTHER_COLUMNS])
            if damage(database, table, column, numbers[index], chance.choice(GARBAGE)):
                hit.add(job_ids[index])
        connection = apsw.Connection(str(database))
        connection.execute("UPDATE vals SET body = ? WHERE name >= ?", (b"\xc1", chance.choice("alsz")))
        connection.close()
        server = fixture.start()
        touch_all(server, job_ids)
        whole = set(job_ids) - hit
        assert {server.job(job_id)["id"] for job_id in whole} == whole
        for job_id in chance.sample(job_ids, 5):
            assert server.http.post(f"/v1/jobs/{job_id}/cancel").status_code in (200, 202, 404, 409, 410)
            assert server.http.delete(f"/v1/jobs/{job_id}").status_code in (204, 404, 409)
        assert "Traceback" not in server.log.read_text()
        fresh = server.submit("nap")
        assert server.wait_for_end(fresh)["state"] == "succeeded"
        connection = apsw.Connection(str(database))
        connection.execute("DELETE FROM jobs WHERE n IN (SELECT n FROM jobs WHERE state = 'damaged')")
        connection.close()
        job_ids = [job_id for ids in fill(server).values() for job_id in ids]
