"""Effect: whatever a handler started is gone with its executor, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.mutate import Change, always, mutated, removed
from tests.faults.server_fixture import LiveServer, ServerFixture, pids_with_environ, until

MARKER = "JOB_RUNNER_EXECUTOR"
#: Only the process group is ended; what has left it lives on.
GROUP_ONLY = [always("swept-until-none")]
#: A worker that ends leaves alone what is below it, and what its executors leave.
NO_CLEARING = [removed("sweep-kills"), removed("clearing-kills")]


@pytest.fixture
def strangers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Look-alikes: the same program and arguments, with a foreign marker and with none."""
    commands = [["sleep", "601"], [sys.executable, "-c", "import time; time.sleep(600)"]]
    started = [
        subprocess.Popen(commands[0], env={**os.environ, MARKER: "somebody-else/1"}),
        subprocess.Popen(commands[1], start_new_session=True),
    ]
    yield started
    for process in started:
        process.kill()
        process.wait()


def _family(server_fixture: ServerFixture, server: LiveServer, **options: object) -> tuple[str, set[int]]:
    """A job whose handler has a pool, a child in its own session and an orphan; and all their pids."""
    server.wait_for_end(server.submit("echo"))
    before = set(server_fixture.processes())
    job_id = server.submit("family", {"block": True}, **options)
    until(lambda: server.job(job_id)["progress"], "the family is up")
    pids = set(server_fixture.processes()) - before
    assert len(pids) >= 5, "executor, two children, two pool workers"
    return job_id, pids


def cancel(server_fixture: ServerFixture, server: LiveServer) -> None:
    """A cancelled job's family is gone."""
    job_id, pids = _family(server_fixture, server)
    assert server.http.post(f"/v1/jobs/{job_id}/cancel", json={}).status_code == 202
    until(lambda: not pids & set(server_fixture.processes()), "cancel ends them all", within_s=3)
    assert server.wait_for_end(job_id)["state"] == "cancelled"


def time_out(server_fixture: ServerFixture, server: LiveServer) -> None:
    """So is that of one that was out of time."""
    job_id, pids = _family(server_fixture, server, timeout_s=1.0)
    until(lambda: not pids & set(server_fixture.processes()), "a timeout ends them all", within_s=1 + 3)
    assert server.wait_for_end(job_id)["error"]["code"] == "timeout"


def kill(server_fixture: ServerFixture, server: LiveServer) -> None:
    """And that of a dead coordinator."""
    _family(server_fixture, server)
    server.signal(signal.SIGKILL)
    server.process.wait()
    until(lambda: not server_fixture.processes(), "a dead coordinator's are gone", within_s=3)


@pytest.mark.slow
def test_cancel_timeout_and_kill_leave_no_process_behind(
    server_fixture: ServerFixture, strangers: list[subprocess.Popen[bytes]]
) -> None:
    server = server_fixture.start()
    cancel(server_fixture, server)
    time_out(server_fixture, server)
    kill(server_fixture, server)
    assert all(process.poll() is None for process in strangers), "a stranger was killed"
    assert pids_with_environ(MARKER, "somebody-else/1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("guard", "fault", "remains"),
    [(GROUP_ONLY, cancel, "cancel ends them all"), (NO_CLEARING, kill, "a dead coordinator's are gone")],
)
def test_without_the_clearing_something_remains(
    tmp_path: Path,
    guard: list[Change],
    fault: Callable[[ServerFixture, LiveServer], None],
    remains: str,
) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, guard))
    try:
        with pytest.raises(AssertionError, match=remains):
            fault(server_fixture, server_fixture.start())
    finally:
        server_fixture.close()
