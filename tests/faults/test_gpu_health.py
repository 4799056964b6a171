"""Effect: GPUs that fail under jobs, on cards that are made up: who has to go, and who stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.fake_gpus import Card, FakeGpus
from tests.fakes.gpu_server import FileGate, start_on_gpus
from tests.faults.server_fixture import ServerFixture, until


@pytest.fixture
def one(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus", Card("GPU-a"))


def pids(trace: Path) -> list[int]:
    """The process of each start that left a line there."""
    return [int(line.split()[2]) for line in trace.read_text().splitlines()]


def test_a_lost_context_costs_one_executor_once_and_no_neighbour(
    server_fixture: ServerFixture, one: FakeGpus
) -> None:
    server, trace = start_on_gpus(server_fixture, one), server_fixture.folder / "trace"
    gate = FileGate(server, server_fixture.folder)
    neighbour = gate.submit_running()
    one.change("GPU-a", launch_error="CUDA error: an illegal memory access was encountered", launch_errors=1)
    job = server.wait_for_end(server.submit("take", {"kernel": True, "trace": str(trace)}, retries=0))
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job
    assert server.attempts(job["id"])[0]["error"]["detail"]["context_lost"] is True
    again = server.wait_for_end(server.submit("take", {"kernel": True, "trace": str(trace)}))
    first, second, third = pids(trace)
    assert first != second == third == again["output"]["pid"]
    gate.open()
    kept = server.wait_for_end(neighbour)
    assert (kept["state"], kept["attempt"]) == ("succeeded", 1)


def test_out_of_memory_costs_no_executor(server_fixture: ServerFixture, one: FakeGpus) -> None:
    server, trace = start_on_gpus(server_fixture, one), server_fixture.folder / "trace"
    gate = FileGate(server, server_fixture.folder)
    gate.submit_running("take-much")
    data = {"bytes": ["30GiB"], "once": True, "trace": str(trace)}
    job_id = server.submit("take", data, retries=0)
    until(lambda: [each["error"] for each in server.attempts(job_id) if each["error"]], "it found no room")
    gate.open()
    job = server.wait_for_end(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job
    assert server.attempts(job_id)[0]["error"]["code"] == "device_out_of_memory"
    assert pids(trace) == [job["output"]["pid"]] * 2
