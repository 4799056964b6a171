"""Effect: a whole real server on GPUs that are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.fake_gpus import GIB, MIB, Card, FakeGpus
from tests.fakes.gpu_server import devices, start_on_gpus
from tests.faults.server_fixture import ServerFixture, until

A, B = "GPU-a", "GPU-b"


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus", Card(A), Card(B))


def test_a_job_takes_bytes_of_the_card_it_is_pinned_to_and_gives_them_back(
    server_fixture: ServerFixture, gpus: FakeGpus
) -> None:
    server, gate = start_on_gpus(server_fixture, gpus), server_fixture.folder / "gate"
    assert devices(server).keys() == {"gpu0", "gpu1", "cpu"}
    job_id = server.submit("take", {"bytes": ["2GiB"], "gate": str(gate)})
    until(lambda: server.job(job_id)["progress"], "it runs")
    taken = until(lambda: gpus.users(A) or gpus.users(B), "it holds bytes")
    assert list(taken.values()) == [2 * GIB + 256 * MIB]
    until(
        lambda: 2 * GIB + 256 * MIB in [each["used_bytes"] for each in devices(server).values()],
        "the device's figures show them",
    )
    gate.touch()
    job = server.wait_for_end(job_id)
    assert (job["state"], job["output"]["pid"]) == ("succeeded", next(iter(taken)))
    assert job["output"]["device"] in (A, B)
    server_fixture.kill(server)
    assert gpus.used(A) == gpus.used(B) == 0
