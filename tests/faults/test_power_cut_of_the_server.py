"""Effect: the whole server loses its power while clients post, on a disk that forgets what was not synced."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.faults import powercut
from tests.faults.mutate import mutated, swapped
from tests.faults.server_fixture import LiveServer, ServerFixture, until

ROUNDS = 5
#: Accepted in each round before the cut.
ENOUGH = 220
CLIENTS = 3
NORMAL = swapped("synced-commits", "FULL", "NORMAL")


class Posters:
    """Clients that post without end, alone and in bulk, and remember every id that was accepted."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.accepted: list[str] = []
        self.pool = ThreadPoolExecutor(CLIENTS)
        self.posting = [self.pool.submit(self._post, number) for number in range(CLIENTS)]

    def _post(self, number: int) -> None:
        job = {"handler": "echo", "input": {"client": number}}
        try:
            with httpx2.Client(base_url=self.server.url, timeout=5, trust_env=False) as http:
                while True:
                    answer = http.post("/v1/jobs", json=job)
                    if answer.status_code == 202:
                        self.accepted.append(answer.json()["id"])
                    answer = http.post("/v1/jobs/bulk", json={"jobs": [job] * 10})
                    if answer.status_code == 202:
                        self.accepted += [one["id"] for one in answer.json()["jobs"]]
        except httpx2.TransportError:
            return

    def until_accepted(self, jobs: int) -> None:
        until(lambda: len(self.accepted) >= jobs, "jobs are accepted")

    def close(self) -> None:
        self.pool.shutdown()


def lose_power(server_fixture: ServerFixture, rounds: int) -> int:
    """Cut the power in the middle of a stream of posts, again and again; gives how many jobs are missing."""
    shadow = server_fixture.folder / "shadow"
    accepted: set[str] = set()
    server_fixture.data.mkdir()
    for _ in range(rounds):
        server = server_fixture.start(env=powercut.env(shadow, server_fixture.data))
        posters = Posters(server)
        try:
            posters.until_accepted(ENOUGH)
            server_fixture.cut_power(server)
        finally:
            posters.close()
        accepted.update(posters.accepted)
        powercut.restore(shadow, server_fixture.data)
    server = server_fixture.start()
    assert len(accepted) >= rounds * ENOUGH
    return len(accepted - {job["id"] for job in server.jobs()})


@pytest.mark.slow
def test_no_accepted_job_is_missing_after_five_power_cuts(server_fixture: ServerFixture) -> None:
    assert lose_power(server_fixture, ROUNDS) == 0


@pytest.mark.slow
def test_without_synced_commits_accepted_jobs_are_missing(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, [NORMAL]))
    try:
        with pytest.raises(AssertionError):
            assert lose_power(server_fixture, 1) == 0
    finally:
        server_fixture.close()
