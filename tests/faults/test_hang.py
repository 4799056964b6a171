"""Effect: native code that hangs, and native code that only looks as if it did."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from tests.faults.mutate import mutated, never, value
from tests.faults.server_fixture import LiveServer, ServerFixture

#: Of a timeout no deadline is made.
NO_DEADLINE = [never("timeout-deadline")]
#: An executor that says nothing for a second is taken for dead.
HASTY = [value("stall-timeout", "1.0")]


def hang(server: LiveServer) -> None:
    """A loop in C ends at its deadline, within the 2 s that a kill may take."""
    job = server.wait_for_end(server.submit("loop_in_c", timeout_s=1), within_s=5)
    assert (job["state"], job["error"]["code"]) == ("failed", "timeout")
    started, finished = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    assert (finished - started).total_seconds() <= 1 + 2


def unharmed(server: LiveServer, healthy: str) -> None:
    """A long hold of the GIL before the deadline is no fault."""
    job = server.wait_for_end(healthy)
    assert (job["state"], job["attempt"]) == ("succeeded", 1), job


@pytest.mark.serial
def test_a_loop_in_c_ends_at_its_deadline_and_a_long_hold_of_the_gil_does_not(
    server_fixture: ServerFixture,
) -> None:
    server = server_fixture.start()
    healthy = server.submit("hold_gil", {"s": 3}, timeout_s=6)
    hang(server)
    unharmed(server, healthy)


@pytest.mark.slow
def test_without_the_deadline_the_loop_goes_on(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, NO_DEADLINE))
    try:
        with pytest.raises(AssertionError, match="running"):
            hang(server_fixture.start())
    finally:
        server_fixture.close()


@pytest.mark.slow
def test_a_limit_on_silence_would_end_the_healthy(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, HASTY))
    try:
        with pytest.raises(AssertionError, match="failed"):
            server = server_fixture.start()
            unharmed(server, server.submit("hold_gil", {"s": 1.6}, timeout_s=6))
    finally:
        server_fixture.close()
