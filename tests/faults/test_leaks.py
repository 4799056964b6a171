"""Effect: handlers that keep more memory after each job than after the one before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.mutate import mutated, swapped, value
from tests.faults.server_fixture import ServerFixture

JOBS = 16
#: Nothing is replaced for having grown.
NO_GROWTH = [value("growth-limit", "0")]


def leak(server_fixture: ServerFixture, handler: str, *flags: str) -> None:
    """Twice as much as the limit in all, and not one job is lost to it."""
    server = server_fixture.start(*flags, executors=1)
    jobs = [server.wait_for_end(server.submit(handler)) for _ in range(JOBS)]
    assert [(job["state"], job["attempt"]) for job in jobs] == [("succeeded", 1)] * JOBS
    pids = [job["output"] for job in jobs]
    assert len(set(pids)) >= 2, "a fresh executor took over"
    # One is not replaced before it is nearly full, nor used again afterwards.
    assert all(pids.count(pid) >= 3 for pid in pids[:6])
    assert [pid for n, pid in enumerate(pids) if n and pid != pids[n - 1]] == list(dict.fromkeys(pids))[1:]


@pytest.mark.slow
def test_a_leak_of_host_memory_is_ended_between_jobs(server_fixture: ServerFixture) -> None:
    leak(server_fixture, "seep")


@pytest.mark.slow
def test_a_leak_of_device_memory_is_ended_between_jobs(server_fixture: ServerFixture) -> None:
    leak(server_fixture, "seep_on_gpu", "--gpus", "sim:1x4GiB")


@pytest.mark.slow
def test_without_the_look_between_jobs_a_leak_costs_one(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, NO_GROWTH))
    try:
        with pytest.raises(AssertionError, match="failed"):
            leak(server_fixture, "seep_on_gpu", "--gpus", "sim:1x4GiB")
    finally:
        server_fixture.close()


@pytest.mark.slow
def test_a_kill_by_the_kernel_for_memory_is_told_apart_from_any_other(tmp_path: Path) -> None:
    made_up = [
        swapped("cgroup-files", "/proc/self/cgroup", f"{tmp_path}/ours"),
        swapped("cgroup-files", "/sys/fs/cgroup", f"{tmp_path}"),
    ]
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, made_up))
    (tmp_path / "ours").write_text("4:pids:/elsewhere\n0::/service\n")
    (tmp_path / "service").mkdir()
    events = tmp_path / "service" / "memory.events"
    events.write_text("low 0\noom 0\noom_kill 0\n")
    try:
        server = server_fixture.start()
        error = server.wait_for_end(server.submit("die", {"how": "KILL"}))["error"]
        assert (error["code"], error["detail"]["oom_kill"]) == ("worker_crashed", False)
        error = server.wait_for_end(server.submit("die", {"how": "KILL", "kernel_tells": str(events)}))[
            "error"
        ]
        assert (error["code"], error["detail"]["oom_kill"]) == ("memory_exceeded", True)
        assert error["detail"]["signal"] == "SIGKILL" and "out-of-memory killer" in error["message"]
        # Another death later is not laid at its door.
        error = server.wait_for_end(server.submit("die", {"how": "KILL"}))["error"]
        assert (error["code"], error["detail"]["oom_kill"]) == ("worker_crashed", False)
    finally:
        server_fixture.close()


def test_executors_are_the_first_that_the_kernel_ends_for_memory(server_fixture: ServerFixture) -> None:
    server = server_fixture.start()
    pid = server.wait_for_end(server.submit("tamper"))["output"]
    scores = [int(Path(f"/proc/{each}/oom_score_adj").read_text()) for each in (pid, server.pid)]
    assert scores[0] == min(1000, scores[1] + 500)
