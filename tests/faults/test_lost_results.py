"""Effect: the coordinator stands still while results pile up unread, then dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.mutate import mutated, value
from tests.faults.server_fixture import LiveServer, ServerFixture, read_trace, until, wait_until_stable

EXECUTORS = 16
RESULTS = 200
#: With runs of so long a line is sixteen deep.
QUICK_S = 0.0002
#: The worker ends without leaving what was not acknowledged.
NO_SPOOL = [value("spool-unacknowledged", "[]")]


def lose_results(server_fixture: ServerFixture) -> None:
    """The worker is held first, so that the coordinator hands it all that it has credit for; then the
    coordinator is held, so that it reads none of the results; then it is killed."""
    trace = server_fixture.folder / "trace"
    server = server_fixture.start(executors=EXECUTORS)
    _warm(server)
    (worker,) = server_fixture.pids_of_role("worker")
    os.kill(worker, signal.SIGSTOP)
    ids = server.submit_many("nap", [{"trace": str(trace)}] * 600, queue="lost")
    # Each executor has one that runs; what is staged behind it went out in the same frames.
    until(lambda: server.counts("lost").get("running") == EXECUTORS, "attempts are with the worker")
    os.kill(server.pid, signal.SIGSTOP)
    os.kill(worker, signal.SIGCONT)
    # All that the worker has runs to its end: what is cut off in the middle has no result to lose.
    assert wait_until_stable(lambda: len(read_trace(trace)), "the handlers ran") >= RESULTS
    ran = {job_id for job_id, _ in read_trace(trace)}
    server_fixture.kill(server)

    server = server_fixture.start(executors=EXECUTORS)
    recorded = until(lambda: _succeeded_once(server, ran), "the results are recorded", within_s=3)
    assert len(recorded) >= RESULTS
    until(lambda: server.counts("lost").get("succeeded") == len(ids), "the rest ran too")
    starts = read_trace(trace)
    assert [job_id for job_id, _ in starts if job_id in recorded] == [
        job_id for job_id, attempt in starts if job_id in recorded and attempt == 1
    ], "a result that was there was made again"


def _warm(server: LiveServer) -> None:
    """All executors are loaded and the handler is known to be quick: staged lines are as deep as the last
    runs were short, which on a busy machine takes more of them."""
    _run_all(server, [{"s": 0.5}] * EXECUTORS, EXECUTORS)
    for times in range(1, 21):
        _run_all(server, [{}] * 320, EXECUTORS + 320 * times)
        if server.figures("nap")["run_s"]["p50"] < QUICK_S:
            return
    raise AssertionError("the machine is too busy for short jobs")


def _run_all(server: LiveServer, inputs: list[dict[str, object]], ended: int) -> None:
    server.submit_many("nap", inputs, queue="warm")
    until(lambda: server.counts("warm").get("succeeded") == ended, "warm runs have ended", within_s=8)


def _succeeded_once(server: LiveServer, wanted: set[str]) -> set[str]:
    """The jobs that ran before the kill, once all of them are told as succeeded at their first attempt."""
    found = {
        job["id"] for job in server.jobs(queue="lost", state="succeeded") if job["attempt"] == 1
    } & wanted
    return found if len(found) == len(wanted) else set()


@pytest.mark.slow
def test_200_unread_results_are_all_recorded_once_after_a_kill(server_fixture: ServerFixture) -> None:
    lose_results(server_fixture)


@pytest.mark.slow
def test_without_the_spool_results_are_lost(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, NO_SPOOL))
    try:
        with pytest.raises(AssertionError, match="the results are recorded"):
            lose_results(server_fixture)
    finally:
        server_fixture.close()
