"""Effect: results that are no JSON, or are far too large."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from tests.faults.handlers import HOSTILE
from tests.faults.server_fixture import LiveServer, ServerFixture

#: What a worker, a front or the coordinator may need more while a result of a GiB is made.
GROWTH_BYTES = 64 << 20


@pytest.mark.slow
def test_a_table_of_hostile_results_ends_typed_and_never_as_our_fault(server_fixture: ServerFixture) -> None:
    server = server_fixture.start()
    pid = server.wait_for_end(server.submit("hostile"))["output"]
    for handler in ("hostile", "hostile_chunks"):
        for kind in HOSTILE:
            job = server.wait_for_end(server.submit(handler, {"kind": kind}))
            assert (job["state"], job["error"]["code"]) == ("failed", "result_not_serialisable"), (kind, job)
            assert job["error"]["message"], kind
            assert all(answer.status_code < 500 for answer in _all_views(server, job["id"])), kind
    assert server.wait_for_end(server.submit("hostile"))["output"] == pid, "the executor goes on"
    assert "Traceback" not in server.log.read_text()


def _all_views(server: LiveServer, job_id: str) -> list[httpx2.Response]:
    paths = ("", "/events", "/attempts", "/explain", "/output")
    return [server.http.get(f"/v1/jobs/{job_id}{path}") for path in paths]


@pytest.mark.slow
def test_a_gigabyte_from_a_generator_is_cut_off_and_held_by_nobody(server_fixture: ServerFixture) -> None:
    server = server_fixture.start()
    pid = server.wait_for_end(server.submit("tamper"))["output"]
    assert server.wait_for_end(server.submit("pour", {"n": 2}))["state"] == "succeeded"
    ours = {role: server_fixture.pids_of_role(role)[0] for role in ("worker", "front", "writer")} | {
        "coordinator": server.pid
    }
    before = {role: peak_bytes(each) for role, each in ours.items()}
    job = server.wait_for_end(server.submit("pour", {"n": 1_024}))
    assert (job["state"], job["error"]["code"]) == ("failed", "result_too_large"), job["error"]
    for role, each in ours.items():
        assert peak_bytes(each) - before[role] <= GROWTH_BYTES, role
    # The worker lives on, and so do its other executors.
    assert server_fixture.pids_of_role("worker") == [ours["worker"]]
    assert server.wait_for_end(server.submit("tamper"))["output"] == pid


def peak_bytes(pid: int) -> int:
    """The most memory that a process has ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
