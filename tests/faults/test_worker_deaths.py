"""Effect: executors die in nine ways beside a neighbour that must not notice."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from tests.faults.mutate import Change, mutated, never, value
from tests.faults.server_fixture import Document, LiveServer, ServerFixture, until

#: How -> signal and exit code that must be told; None, None where the worker itself had to end it.
WAYS: dict[str, tuple[str | None, int | None]] = {
    "SEGV": ("SIGSEGV", None),
    "KILL": ("SIGKILL", None),
    "ABRT": ("SIGABRT", None),
    "exit 0": (None, 0),
    "exit 3": (None, 3),
    "closed descriptors": (None, None),
    "stack overflow": ("SIGSEGV", None),
    "exec": (None, None),
}


#: The wait status is not looked at.
NO_STATUS = [value("wait-status", "{} and 0")]
#: A channel that its executor has closed is nobody's concern.
NO_CHANNEL = [never("closed-channel")]


def deaths(server: LiveServer, stamp: Path, ways: dict[str, tuple[str | None, int | None]]) -> None:
    """Each is told by its exact cause within a second, and replaced within three."""
    for how, (name, exit_code) in ways.items():
        job = server.wait_for_end(server.submit("die", {"how": how, "stamp": str(stamp)}), within_s=5)
        _assert_told(job, stamp, "worker_crashed", how)
        detail = job["error"]["detail"]
        if name or exit_code is not None:
            assert (detail["signal"], detail["exit_code"]) == (name, exit_code), how
        assert f"about to die: {how}" in detail["stderr_tail"]
        # Nobody waits longer than 3 s for a replacement.
        assert server.wait_for_end(server.submit("die"), within_s=3)["state"] == "succeeded"


@pytest.mark.slow
def test_nine_deaths_are_told_exactly_and_leave_the_neighbour_alone(server_fixture: ServerFixture) -> None:
    gate, stamp = server_fixture.folder / "gate", server_fixture.folder / "stamp"
    server = server_fixture.start()
    neighbour = server.submit("steady", {"gate": str(gate)})
    until(lambda: server.job(neighbour)["progress"], "the neighbour runs")
    deaths(server, stamp, WAYS)
    job = server.wait_for_end(server.submit("leak", {"stamp": str(stamp)}))
    _assert_told(job, stamp, "memory_exceeded", "leak", within_s=3.0)
    _assert_untouched(server, neighbour, gate)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("guard", "how", "told"),
    [(NO_STATUS, "SEGV", "SIGSEGV"), (NO_CHANNEL, "exec", "running")],
)
def test_without_a_look_at_the_dead_their_cause_is_not_told(
    tmp_path: Path, guard: list[Change], how: str, told: str
) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, guard))
    try:
        with pytest.raises(AssertionError, match=told):
            deaths(server_fixture.start(), tmp_path / "stamp", {how: WAYS[how]})
    finally:
        server_fixture.close()


def _assert_told(job: Document, stamp: Path, code: str, how: str, *, within_s: float = 1.0) -> None:
    assert (job["state"], job["error"]["code"]) == ("failed", code), (how, job)
    told_at = datetime.fromisoformat(job["finished_at"]).timestamp()
    assert told_at - float(stamp.read_text()) <= within_s, how


def _assert_untouched(server: LiveServer, neighbour: str, gate: Path) -> None:
    gate.touch()
    job = server.wait_for_end(neighbour)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
