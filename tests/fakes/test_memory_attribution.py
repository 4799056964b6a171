"""Effect: whose bytes are whose, on a whole server with GPUs that are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.fake_gpus import GIB, MIB, Card, FakeGpus
from tests.fakes.gpu_server import devices, start_on_gpus
from tests.faults.server_fixture import Document, LiveServer, ServerFixture, until

pytestmark = pytest.mark.slow

A = "GPU-a"
CONTEXT = 256 * MIB


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus", Card(A))


def adds_up(device: Document) -> bool:
    """Whether every byte of the device is in one place, and every reserved one with an executor."""
    parts = ("headroom", "foreign", "reserved", "draining", "free")
    charged = sum(each["charged_bytes"] for each in device["executors"])
    total: int = sum(device[f"{part}_bytes"] for part in parts) - device["short_bytes"]
    return bool(total == device["total_bytes"] and charged == device["reserved_bytes"])


def executor_of(server: LiveServer) -> Document:
    (executor,) = devices(server)["gpu0"]["executors"]
    return dict(executor)


def test_the_driver_names_our_processes_and_the_rest_is_foreign(
    server_fixture: ServerFixture, gpus: FakeGpus
) -> None:
    gpus.change(A, strangers={1: GIB}, foreign=GIB)
    server, gate = start_on_gpus(server_fixture, gpus), server_fixture.folder / "gate"
    job_id = server.submit("take", {"bytes": ["2GiB"], "gate": str(gate)})
    until(lambda: server.job(job_id)["progress"], "it runs")
    until(lambda: executor_of(server)["resident_bytes"] == 2 * GIB + CONTEXT, "its bytes are known")
    device = devices(server)["gpu0"]
    assert (device["level"], device["foreign_bytes"]) == ("processes", 2 * GIB) and adds_up(device)
    assert server.http.get("/readyz").json()["parts"]["device gpu0"]["level"] == "processes"
    until(lambda: server.http.get("/healthz").json()["level"] == "processes", "fronts are told")
    gate.touch()
    server.wait_for_end(job_id)
    until(lambda: executor_of(server)["charged_bytes"] < 4 * GIB, "it idles and is charged what it uses")
    assert adds_up(devices(server)["gpu0"])


def test_a_lost_card_takes_no_work_and_says_why(server_fixture: ServerFixture, gpus: FakeGpus) -> None:
    server = start_on_gpus(server_fixture, gpus)
    until(lambda: devices(server)["gpu0"]["health"] == "ok", "it is read")
    gpus.change(A, errors={"*": 15})
    until(lambda: devices(server)["gpu0"]["health"] != "ok", "it is lost")
    job_id = server.submit("take", {})
    explained = server.http.get(f"/v1/jobs/{job_id}/explain").json()
    assert "gpu0 is out of service (lost)" in explained["message"]
    assert explained["devices"][0]["reason"] == "device_fault"
    gpus.change(A, errors={})
    assert server.wait_for_end(job_id)["state"] == "succeeded"


WATCHDOG = {"RUNNER_DEVICES__ENFORCEMENT": "watchdog"}


def test_who_needs_more_than_its_grant_is_given_more_where_there_is_room(
    server_fixture: ServerFixture, gpus: FakeGpus
) -> None:
    server, gate = start_on_gpus(server_fixture, gpus, env=WATCHDOG), server_fixture.folder / "gate"
    job_id = server.submit("take", {"bytes": ["6GiB"], "gate": str(gate)})
    until(lambda: executor_granted(server) == 6 * GIB + CONTEXT, "its grant is raised")
    assert adds_up(devices(server)["gpu0"])
    gate.touch()
    assert server.wait_for_end(job_id)["state"] == "succeeded"


def test_without_room_the_one_that_is_over_ends_and_its_neighbour_does_not(
    server_fixture: ServerFixture, gpus: FakeGpus
) -> None:
    server, gate = start_on_gpus(server_fixture, gpus, env=WATCHDOG), server_fixture.folder / "gate"
    beside = server.submit("take-much", {"bytes": ["15GiB"], "gate": str(gate)})
    until(lambda: server.job(beside)["progress"], "it runs")
    job_id = server.submit("take", {"bytes": ["8GiB"], "gate": str(gate)})
    ended = {"waiting_for_memory", "waiting_for_device"}
    until(lambda: server.job(job_id)["reason"] in ended, "it was ended, and waits for room")
    (attempt,) = server.attempts(job_id)
    assert attempt["error"]["code"] == "memory_exceeded"
    assert "over its grant of 4096 MiB" in attempt["error"]["message"]
    assert [one["charged_bytes"] for one in attempt["error"]["detail"]["neighbours"]] == [16 * GIB]
    gate.touch()
    assert [server.wait_for_end(each)["state"] for each in (beside, job_id)] == ["succeeded", "succeeded"]


def test_where_others_take_what_was_promised_idle_models_go(
    server_fixture: ServerFixture, gpus: FakeGpus
) -> None:
    server = start_on_gpus(server_fixture, gpus)
    server.wait_for_end(server.submit("take-much", {"bytes": ["12GiB"]}))
    until(lambda: executor_granted(server), "it is warm")
    gpus.change(A, foreign=10 * GIB, strangers={1: 3 * GIB})
    until(lambda: not devices(server)["gpu0"]["executors"], "it makes room")
    until(lambda: not devices(server)["gpu0"]["short_bytes"], "nothing is owed any more")


def executor_granted(server: LiveServer) -> int:
    """What the first executor on the card is granted; 0 where there is none."""
    executors = devices(server)["gpu0"]["executors"]
    return int(executors[0]["granted_bytes"]) if executors else 0


def test_torch_is_held_to_the_grant_from_its_first_tensor_on(
    server_fixture: ServerFixture, gpus: FakeGpus
) -> None:
    server = start_on_gpus(server_fixture, gpus)
    job = server.wait_for_end(server.submit("take", {"bytes": ["4.5GiB"]}), within_s=20)
    first = server.attempts(job["id"])[0]
    assert first["error"]["code"] == "device_out_of_memory"
    assert devices(server)["gpu0"]["foreign_bytes"] == 0


def test_the_context_is_measured_and_kept_from_the_cap(server_fixture: ServerFixture, gpus: FakeGpus) -> None:
    gpus.change(A, context=600 * MIB)
    server = start_on_gpus(server_fixture, gpus)
    # Nothing is known of contexts yet: torch may have nearly all of the grant.
    assert server.wait_for_end(server.submit("take", {"bytes": ["3.8GiB"]}))["state"] == "succeeded"
    until(lambda: devices(server)["gpu0"]["context_bytes"] is not None, "the context was measured")
    # What was written before a job that was accepted is as durable as the job.
    server.submit("take")
    server_fixture.kill(server)
    server = start_on_gpus(server_fixture, gpus)
    job = server.wait_for_end(server.submit("take", {"bytes": ["3.8GiB"]}), within_s=20)
    assert server.attempts(job["id"])[0]["error"]["code"] == "device_out_of_memory"
    assert server.wait_for_end(server.submit("take", {"bytes": ["3.3GiB"]}))["state"] == "succeeded"


def test_the_peak_of_a_short_job_is_known_with_its_context(
    server_fixture: ServerFixture, gpus: FakeGpus
) -> None:
    server = start_on_gpus(server_fixture, gpus)
    server.wait_for_end(server.submit("take", {"bytes": ["1GiB"]}))
    until(lambda: devices(server)["gpu0"]["context_bytes"] is not None, "the context was measured")
    job = server.wait_for_end(server.submit("take", {"bytes": ["1GiB", "2GiB"]}))
    (attempt,) = server.attempts(job["id"])
    assert attempt["vram_peak_bytes"] == 3 * GIB + CONTEXT


@pytest.mark.parametrize("processes", ["host", "unknown", "hidden"])
def test_where_the_driver_does_not_name_us_executors_report(
    server_fixture: ServerFixture, gpus: FakeGpus, processes: str
) -> None:
    gpus.change(A, processes=processes, foreign=GIB)
    server, gate = start_on_gpus(server_fixture, gpus), server_fixture.folder / "gate"
    assert devices(server)["gpu0"]["level"] == "totals"
    job_id = server.submit("take", {"bytes": ["2GiB"], "gate": str(gate)})
    until(lambda: server.job(job_id)["progress"], "it runs")
    assert devices(server)["gpu0"]["foreign_bytes"] == GIB, "what it takes of its grant is its own"
    gate.touch()
    server.wait_for_end(job_id)
    until(lambda: devices(server)["gpu0"]["level"] == "reports", "it told")
    until(
        lambda: devices(server)["gpu0"]["context_bytes"] is not None,
        "the context was measured from the total",
    )
    server.wait_for_end(server.submit("take", {"bytes": ["2GiB"]}))
    until(lambda: executor_of(server)["resident_bytes"] == 2 * GIB + CONTEXT, "with its context")
    device = devices(server)["gpu0"]
    assert adds_up(device) and executor_of(server)["charged_bytes"] == 2 * GIB + CONTEXT
