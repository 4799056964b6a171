"""Effect: the coordinator is killed at random moments while jobs run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.mutate import mutated, never, value
from tests.faults.server_fixture import LiveServer, ServerFixture, read_trace, until

JOBS = 200
KILLS = 5
#: The next start takes so long at most.
READY_S = 2.0
#: Nobody says that an attempt was cut off: not its worker, which is the first to know, nor the next start.
NOT_TOLD = [
    value("spool-unacknowledged", "[]"),
    never("interrupted-at-start"),
]


def kill_loop(server_fixture: ServerFixture, kills: int, ready_s: float) -> None:
    """Kills at random moments lose no job, and none ends twice."""
    moments = random.Random(4)
    trace = server_fixture.folder / "trace"
    server = server_fixture.start()
    ids = server.submit_many("nap", [{"s": 0.01, "trace": str(trace)}] * JOBS)
    for _ in range(kills):
        _work_on(server, moments.randint(2, JOBS // (2 * kills)))
        server_fixture.kill(server)
        server = server_fixture.start()
        assert server.ready_s <= ready_s

    until(lambda: _ended(server) == JOBS, "all jobs have ended", within_s=8)
    starts = read_trace(trace)
    # The start of a first attempt need not be durable before it is made; that of a later one is.
    later = [start for start in starts if start[1] > 1]
    assert len(later) == len(set(later)), "an attempt ran twice"
    assert {job["id"] for job in server.jobs()} == set(ids)
    for job_id in ids:
        _assert_ended_once(server, job_id, {attempt for job, attempt in starts if job == job_id})


@pytest.mark.serial
def test_five_kills_at_random_moments_lose_no_job_and_end_none_twice(server_fixture: ServerFixture) -> None:
    kill_loop(server_fixture, KILLS, READY_S)


@pytest.mark.slow
def test_what_nobody_puts_back_is_missed(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, NOT_TOLD))
    try:
        # Their jobs count as running, in no executor, for ever.
        with pytest.raises(AssertionError, match="all jobs have ended"):
            kill_loop(server_fixture, 3, float("inf"))
    finally:
        server_fixture.close()


def _ended(server: LiveServer) -> int:
    counts = server.counts()
    return sum(counts.get(state, 0) for state in ("succeeded", "failed", "cancelled"))


def _work_on(server: LiveServer, jobs: int) -> None:
    """Back when so many more have ended."""
    enough = min(_ended(server) + jobs, JOBS)
    until(lambda: _ended(server) >= enough, "the line goes on")


def _assert_ended_once(server: LiveServer, job_id: str, ran: set[int]) -> None:
    """One end, told once; the attempt number rose only for runs that were cut off."""
    job = server.job(job_id)
    assert job["state"] == "succeeded", job
    attempts = server.attempts(job_id)
    assert [entry["error"] and entry["error"]["code"] for entry in attempts] == [
        *["interrupted"] * (len(attempts) - 1),
        None,
    ]
    assert job["attempt"] == len(attempts)
    assert ran <= set(range(1, len(attempts) + 1))
    if len(attempts) > 1:
        assert [event.name for event in server.events(job_id)].count("done") == 1
