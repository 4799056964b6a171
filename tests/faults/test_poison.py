"""Effect: a job that kills its executor every time, among jobs that do no harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.mutate import mutated, never, value
from tests.faults.server_fixture import ServerFixture, read_trace, until

NO_RETRY_WAIT = {"kind": "fixed", "base_s": 0.05, "jitter": 0}
GOOD = 20
#: Deaths are counted but bound nothing.
NO_BUDGET = [value("deaths-budget", "99")]


def poison(server_fixture: ServerFixture) -> None:
    """Killer and good jobs share handler and executors, so that good ones wait right behind the killer."""
    trace = server_fixture.folder / "trace"
    server = server_fixture.start()
    killer = server.submit(
        "die", {"how": "SEGV", "trace": str(trace)}, retries=5, backoff=NO_RETRY_WAIT, queue="killer"
    )
    good = server.submit_many("die", [{}] * GOOD)
    job = server.wait_for_end(killer)
    assert (job["state"], job["error"]["code"], job["attempt"]) == ("failed", "poisoned", 2), job
    assert read_trace(trace) == [(killer, 1), (killer, 2)]
    until(lambda: server.counts().get("succeeded") == GOOD, "all good jobs end well")
    assert {server.job(job_id)["attempt"] for job_id in good} == {1}, "a job was blamed that did not run"


@pytest.mark.slow
def test_a_killer_dies_twice_and_takes_no_good_job_with_it(server_fixture: ServerFixture) -> None:
    poison(server_fixture)


@pytest.mark.slow
def test_without_the_budget_a_killer_goes_on(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, NO_BUDGET))
    try:
        with pytest.raises(AssertionError, match="worker_crashed"):
            poison(server_fixture)
    finally:
        server_fixture.close()


NAPS = 3


def kill_workers(server_fixture: ServerFixture) -> None:
    """A job that kills its worker each time, beside jobs that take longer than the worker then lives."""
    server = server_fixture.start(executors=NAPS + 1)
    good = server.submit_many("nap", [{"s": 1.0}] * NAPS)
    killer = server.submit("kill_parent", {})
    until(
        lambda: server.counts().get("succeeded") == NAPS and server.job(killer)["state"] == "failed",
        "all ends",
        within_s=40,
    )
    assert server.job(killer)["error"]["code"] == "poisoned"
    assert {server.job(job_id)["retries_left"] for job_id in good} == {0}


@pytest.mark.slow
def test_a_job_that_kills_its_worker_is_set_apart_and_its_neighbours_succeed(
    server_fixture: ServerFixture,
) -> None:
    kill_workers(server_fixture)


@pytest.mark.slow
def test_beside_others_a_killer_of_workers_is_not_found(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, [never("suspect-set-apart")]))
    try:
        with pytest.raises(AssertionError, match="all ends"):
            kill_workers(server_fixture)
    finally:
        server_fixture.close()
