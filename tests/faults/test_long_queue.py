"""Effect: a line far longer than memory holds of it, over a real server that is killed in the middle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.mutate import mutated, value
from tests.faults.server_fixture import Document, LiveServer, ServerFixture, read_trace, until

pytestmark = pytest.mark.slow

#: Bounds so small that a thousand jobs are a long line.
SMALL = [
    value("spill-kept", "60"),
    value("spill-window", "40"),
    value("spill-live", "120"),
    value("spill-small-window", "8"),
    value("spill-read-rows", "30"),
    value("spill-due", "20"),
]
JOBS = 1_200


@pytest.fixture
def small(tmp_path: Path) -> Iterator[ServerFixture]:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, SMALL))
    yield server_fixture
    server_fixture.close()


def pause(server: LiveServer, verb: str, queue: str = "default") -> None:
    assert server.http.post(f"/v1/queues/{queue}/{verb}").status_code == 200


def listed(server: LiveServer, **filters: str) -> list[Document]:
    """All jobs that match, over all pages."""
    found: list[Document] = []
    cursor: str | None = None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        page = server.http.get("/v1/jobs", params={"limit": "500", **filters, **more}).json()
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def queue(server: LiveServer) -> Document:
    return dict(server.http.get("/v1/queues/default").json())


def all_ended(server: LiveServer, jobs: int, *, within_s: float) -> None:
    def look() -> bool:
        counts = server.counts()
        return sum(counts.get(state, 0) for state in ("succeeded", "failed", "cancelled")) == jobs

    until(look, "all jobs have ended", within_s=within_s, every_s=0.05)


def test_a_long_line_survives_a_kill_and_each_job_runs_once_in_its_turn(small: ServerFixture) -> None:
    trace = small.folder / "trace"
    server = small.start(executors=1)
    pause(server, "pause")
    ids = server.submit_many("nap", [{"trace": str(trace)}] * JOBS, tags=["mass"])
    urgent = server.submit_many("nap", [{"trace": str(trace)}] * 100, priority=90)
    assert queue(server)["counts"]["queued"] == JOBS + 100
    assert queue(server)["reasons"] == {"paused": JOBS + 100}
    assert [job["id"] for job in reversed(listed(server, state="queued", tag="mass"))] == ids

    # Whoever names one finds it, wherever it waits.
    late = server.job(ids[900])
    assert (late["state"], late["reason"], late["input"]) == ("queued", "paused", {"trace": str(trace)})
    explained = server.http.get(f"/v1/jobs/{ids[900]}/explain").json()
    assert (explained["reason"], explained["jobs_ahead"]) == ("paused", 1_000)
    waited = server.http.get(f"/v1/jobs/{ids[901]}", headers={"Prefer": "wait=1"}).json()
    assert waited["state"] == "queued"
    cancelled = server.http.post(f"/v1/jobs/{ids[902]}/cancel", json={"reason": "by hand"})
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert server.http.delete(f"/v1/jobs/{ids[903]}").status_code == 204
    assert server.http.post(f"/v1/jobs/{ids[904]}/retry").json()["code"] == "job_not_finished"
    kept = [job_id for job_id in ids if job_id not in (ids[902], ids[903])]

    small.kill(server)
    server = small.start(executors=1)
    assert queue(server)["reasons"] == {"paused": JOBS + 98}
    pause(server, "resume")
    until(lambda: server.counts().get("succeeded", 0) > 250, "the line goes on", within_s=20)
    small.kill(server)
    server = small.start(executors=1)
    all_ended(server, JOBS + 99, within_s=40)

    starts = read_trace(trace)
    first = list(dict.fromkeys(job_id for job_id, _ in starts))
    for line in (urgent, kept):
        assert [job_id for job_id in first if job_id in set(line)] == line
    assert set(first) == {*urgent, *kept}
    assert first[:40] == urgent[:40]
    # Only what was cut off by the kill ran more than once.
    again = Counter(job_id for job_id, _ in starts)
    assert sum(count - 1 for count in again.values()) <= 16
    assert {job["state"] for job in listed(server) if job["id"] != ids[902]} == {"succeeded"}


def test_who_waits_for_a_sleeping_job_is_answered_and_its_stream_goes_on(small: ServerFixture) -> None:
    server = small.start()
    pause(server, "pause")
    ids = server.submit_many("echo", [{"n": n} for n in range(400)])
    stream = server.events(ids[399])
    assert next(stream).name == "snapshot"
    pause(server, "resume")
    assert server.wait_for_end(ids[398], within_s=20)["output"] == {"n": 398}
    assert [event.name for event in stream][-1] == "done"


def test_delayed_jobs_and_longest_waits_keep_their_moments_asleep_and_over_a_kill(
    small: ServerFixture,
) -> None:
    server = small.start()
    pause(server, "pause")
    # The first that must not wait for long end before the kill, the others after it.
    soon = server.submit_many("echo", [{}] * 150, queue_timeout_s=0.5)
    later = server.submit_many("echo", [{}] * 150, queue_timeout_s=6.0)
    delayed = server.submit_many("echo", [{}] * 300, delay_s=5.0)
    assert queue(server)["reasons"].get("scheduled") == 300
    until(lambda: server.counts().get("failed", 0) == 150, "those that waited too long end", within_s=8)
    small.kill(server)
    server = small.start()
    assert {server.job(job_id)["reason"] for job_id in (delayed[0], delayed[299])} <= {"scheduled", "paused"}
    until(lambda: server.counts().get("failed", 0) == 300, "the others too", within_s=12)
    assert {job["error"]["code"] for job in listed(server, state="failed")} == {"queue_timeout"}
    pause(server, "resume")
    all_ended(server, 600, within_s=20)
    ended = {job["id"]: job for job in listed(server)}
    for job_id in delayed:
        assert ended[job_id]["state"] == "succeeded"
        assert ended[job_id]["started_at"] >= ended[job_id]["ready_at"]
    assert {ended[job_id]["state"] for job_id in soon + later} == {"failed"}
