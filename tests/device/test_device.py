"""Effect: jobs on a GPU: a real one with `make test-gpu`, else one that is made up."""

from __future__ import annotations

import time
from pathlib import Path

import httpx2
import pytest

from runner.client import JobHandle
from runner.testing import ServedClient
from tests.device.device_under_test import DeviceUnderTest
from tests.fakes.fake_gpus import GIB, MIB
from tests.faults.server_fixture import Document, until

#: A server, a process, torch and a context: the first on a machine whose disk is cold takes long.
pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]
START_S = 90.0


def device(client: ServedClient) -> Document:
    """What the server says of its GPU."""
    (found,) = [each for each in client.devices() if each["kind"] == "nvidia"]
    return found


def executor(client: ServedClient) -> Document:
    """The first one that lives on it."""
    found: Document = device(client)["executors"][0]
    return found


def running(job: JobHandle[Document]) -> Document:
    """What it has said as soon as it runs."""
    return until(lambda: job.status().progress, "it runs", within_s=START_S)


def test_a_job_sees_the_one_device_it_is_pinned_to(device_under_test: DeviceUnderTest) -> None:
    with device_under_test.serve() as client:
        found = client.run("where", {}, result_timeout=START_S)
    assert (found["count"], found["device"], found["mask"]) == (1, "cuda:0", device_under_test.uuid)
    assert found["uuid"].removeprefix("GPU-") == device_under_test.uuid.removeprefix("GPU-")
    assert found["sum"] == 256.0**3


def test_two_models_share_the_device_at_the_same_time(
    device_under_test: DeviceUnderTest, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with device_under_test.serve() as client:
        before = device_under_test.used_bytes()
        jobs = [client.submit(name, {"gate": str(gate)}) for name in ("model", "other-model")]
        pids = [running(job)["details"]["pid"] for job in jobs]
        assert len(set(pids)) == 2
        assert device_under_test.used_bytes() >= before + 2 * 256 * MIB
        until(lambda: device(client)["used_bytes"] >= before + 2 * 256 * MIB, "the figures show both")
        gate.touch()
        assert [job.result(timeout=START_S)["pid"] for job in jobs] == pids


def test_torch_is_held_to_the_grant(device_under_test: DeviceUnderTest) -> None:
    with device_under_test.serve() as client:
        found = client.run("fill", {"most": 6 * GIB}, result_timeout=START_S)
    assert found["full"], "it was given more than its grant"
    assert GIB <= found["held"] <= found["granted"] == 2 * GIB


def test_who_runs_out_of_memory_is_given_more_until_there_is_no_more(
    device_under_test: DeviceUnderTest,
) -> None:
    with device_under_test.serve() as client:
        job = client.submit("need", {"bytes": 5 * GIB // 2}, retries=0)
        assert job.result(timeout=START_S)["held"] == 5 * GIB // 2
        grants = [each["granted_bytes"] for each in client.attempts(job.id)]
        assert len(grants) == 2 and grants[0] == 2 * GIB < 5 * GIB // 2 < grants[1]
        most = client.submit("need", {"bytes": 1 << 44}, retries=0)
        ended = most.wait(timeout=START_S)
        assert (ended.state, ended.reason) == ("failed", "device_out_of_memory"), ended
        assert ended.error is not None
        granted = ended.error["detail"]["granted_bytes"]
        assert (
            granted == sorted(granted)
            and len(granted) >= 3
            and granted[-1] > device_under_test.free_bytes() // 2
        )


def test_who_is_over_its_grant_is_given_more_where_there_is_room_and_ended_where_there_is_none(
    device_under_test: DeviceUnderTest, tmp_path: Path
) -> None:
    gate, other_gate = tmp_path / "gate", tmp_path / "other"
    with device_under_test.serve(devices={"enforcement": "watchdog"}) as client:
        over = client.submit("hold", {"bytes": 4 * GIB, "gate": str(gate)})
        running(over)
        until(lambda: executor(client)["granted_bytes"] >= 4 * GIB, "it was given more")
        gate.touch()
        assert over.result(timeout=START_S)["granted"] >= 4 * GIB
        gate.unlink()
        # All but 3 GiB are promised to one that takes next to nothing of it.
        promised = device(client)["free_bytes"] + executor(client)["charged_bytes"] - 3 * GIB
        neighbour = client.submit(
            "hold", {"bytes": 128 * MIB, "gate": str(other_gate)}, vram=promised, retries=0
        )
        running(neighbour)
        over = client.submit("hold-too", {"bytes": 6 * GIB, "gate": str(gate)}, retries=0)
        until(
            lambda: client.attempts(over.id) and client.attempts(over.id)[0]["error"],
            "it is ended",
            within_s=15,
        )
        assert client.attempts(over.id)[0]["error"]["code"] == "memory_exceeded"
        assert neighbour.status().state == "running", "its neighbour pays for nothing"
        gate.touch()
        other_gate.touch()
        assert neighbour.result(timeout=START_S)["held"] == 128 * MIB
        assert over.result(timeout=START_S)["held"] == 6 * GIB, "alone it has room"


def test_jobs_in_a_batch_are_computed_at_once_and_each_gets_its_own(
    device_under_test: DeviceUnderTest,
) -> None:
    with device_under_test.serve() as client:
        jobs = client.submit_many("batched", [{"number": number} for number in range(16)])
        found = [job.result(timeout=START_S) for job in jobs]
    assert [each["number"] for each in found] == list(range(16))
    assert {each["sum"] for each in found} == {256.0**2}
    assert max(each["together"] for each in found) > 1


def test_a_warm_model_answers_far_sooner_than_a_cold_one(device_under_test: DeviceUnderTest) -> None:
    with device_under_test.serve() as client:
        began = time.monotonic()
        first = client.run("model", {}, result_timeout=START_S)
        cold_s = time.monotonic() - began
        began = time.monotonic()
        second = client.run("model", {}, result_timeout=START_S)
        warm_s = time.monotonic() - began
    print(f"cold {cold_s:.2f} s, warm {warm_s * 1e3:.1f} ms on {device_under_test.name}")
    assert (first["jobs"], second["jobs"], second["pid"]) == (1, 2, first["pid"])
    assert warm_s < cold_s / 4


def test_a_kill_in_mid_kernel_gives_the_memory_back(device_under_test: DeviceUnderTest) -> None:
    with device_under_test.serve() as client:
        before = device_under_test.used_bytes()
        job = client.submit("burn", {"bytes": 2 * GIB})
        running(job)
        assert device_under_test.used_bytes() >= before + 2 * GIB
        began = time.monotonic()
        forced = httpx2.post(f"{client.server.url}/v1/jobs/{job.id}/cancel", json={"force": True})
        assert forced.status_code == 202, forced.text
        assert job.wait(timeout=START_S).state == "cancelled"
        ended_s = time.monotonic() - began
        until(lambda: device_under_test.used_bytes() < before + 128 * MIB, "the memory is free", within_s=10)
        free_s = time.monotonic() - began
        until(lambda: device(client)["draining_bytes"] == 0, "it may be granted again", within_s=15)
        granted_s = time.monotonic() - began
        print(f"cancel to its end {ended_s:.2f} s, to free {free_s:.2f} s, to grantable {granted_s:.2f} s")
        assert client.run("where", {}, result_timeout=START_S)["count"] == 1
