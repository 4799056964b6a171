"""Effect: a forced cancel comes to the worker when its attempt is over and the next one runs there."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults.server_fixture import LiveServer, ServerFixture, read_trace, until

TRIES = 15


@pytest.mark.slow
def test_a_forced_cancel_that_comes_late_spares_the_attempt_behind_it(server_fixture: ServerFixture) -> None:
    server = server_fixture.start(executors=1)
    for job_id in server.submit_many("nap", [{}] * 100):
        server.wait_for_end(job_id)
    (worker,) = server_fixture.pids_of_role("worker")
    assert any(_came_late(server_fixture, server, worker, number) for number in range(TRIES)), (
        "never behind another"
    )


def _came_late(server_fixture: ServerFixture, server: LiveServer, worker: int, number: int) -> bool:
    """Whether the second job had begun when the first one's cancel came; where it had, it goes on."""
    traces = [server_fixture.folder / f"{which}-{number}" for which in ("first", "second")]
    first, second = server.submit_many(
        "nap", [{"s": s, "trace": str(trace)} for s, trace in zip((0.3, 1.0), traces, strict=True)]
    )
    until(lambda: read_trace(traces[0]), "the first one runs", every_s=0.001)
    # Before the second one, which waits behind a run that takes long, is called back.
    os.kill(worker, signal.SIGSTOP)
    try:
        try:
            until(lambda: read_trace(traces[1]), "the second one runs", within_s=0.8)
        except AssertionError:
            return False
        assert server.http.post(f"/v1/jobs/{first}/cancel", json={"force": True}).status_code == 202
    finally:
        os.kill(worker, signal.SIGCONT)
        if not read_trace(traces[1]):
            server.http.post(f"/v1/jobs/{second}/cancel", json={"force": True})
    job = server.wait_for_end(second)
    assert (job["state"], job["attempt"]) == ("succeeded", 1), job
    return True
