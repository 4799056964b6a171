"""The running server: a device is drained, resumed and narrowed by the operator, also over a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runner.testing import Server as Process
from tests.faults.server_fixture import LiveServer, until
from tests.runner.coordinator.conftest import HANDLERS
from tests.runner.coordinator.server_client import (
    connect_to,
    devices,
    executors,
    post,
    wait_for_reason,
    wait_until_running,
)

Serve = Callable[..., LiveServer]


def gone(server: LiveServer, handler: str) -> None:
    """Wait until no executor of the handler lives."""
    until(lambda: not executors(server, handler), f"no executor of {handler}")


@pytest.mark.slow
def test_a_drained_device_ends_what_runs_and_starts_nothing(serve: Serve, gate: Path) -> None:
    server = serve(gpus="sim:1x24GiB")
    running = server.submit("small", {"gate": str(gate)})
    wait_until_running(server, running)
    idle = server.wait_for_end(server.submit("medium"))
    assert idle["state"] == "succeeded"
    shown = post(server, "/devices/sim0/drain", status=200)
    assert shown["id"] == "sim0" and shown["drained"] and shown["events"][-1]["type"] == "drained"
    gone(server, "medium")
    late = server.submit("small", {})
    assert wait_for_reason(server, late, "waiting_for_device")["state"] == "queued"
    explained = server.http.get(f"/v1/jobs/{late}/explain").json()
    assert [each["reason"] for each in explained["devices"]] == ["drained"]
    assert "sim0 is drained" in explained["message"]
    gate.touch()
    assert server.wait_for_end(running)["state"] == "succeeded"
    gone(server, "small")
    assert server.job(late)["state"] == "queued"
    shown = post(server, "/devices/sim0/resume", status=200)
    assert not shown["drained"] and shown["events"][-1]["type"] == "resumed"
    assert server.wait_for_end(late)["state"] == "succeeded"


def test_work_goes_round_a_drained_device_and_what_was_staged_there_too(serve: Serve, gate: Path) -> None:
    server = serve(gpus="sim:2x24GiB")
    first = wait_until_running(server, server.submit("big", {"gate": str(gate)}))
    drained = first["devices"][0]
    post(server, f"/devices/{drained}/drain", status=200)
    other = server.wait_for_end(server.submit("big"))
    assert other["state"] == "succeeded" and other["devices"] != [drained]
    gate.touch()
    assert server.wait_for_end(first["id"])["attempt"] == 1


@pytest.mark.slow
def test_a_pinned_executor_goes_with_its_device_too(serve: Serve) -> None:
    server = serve(gpus="none")
    pid = server.wait_for_end(server.submit("pinned"))["output"]
    post(server, "/devices/cpu/drain", status=200)
    gone(server, "pinned")
    post(server, "/devices/cpu/resume", status=200)
    assert server.wait_for_end(server.submit("pinned"))["output"] != pid


@pytest.mark.slow
def test_no_more_run_at_once_than_the_operator_says(serve: Serve, gate: Path) -> None:
    server = serve(gpus="sim:1x24GiB")
    url = "/v1/devices/SIM-0"
    assert server.http.patch(url, json={"max_executors": 1}).json()["max_executors"] == 1
    first = server.submit("small", {"gate": str(gate)})
    wait_until_running(server, first)
    second = server.submit("small", {"gate": str(gate)})
    wait_for_reason(server, second, "waiting_for_device")
    answer = server.http.patch(url, json={"max_executors": None}).json()
    assert answer["max_executors"] == 8 and answer["events"][-1]["type"] == "max_executors"
    wait_until_running(server, second)
    gate.touch()
    missing = server.http.post("/v1/devices/gpu7/drain")
    assert missing.status_code == 404 and "known devices: sim0" in missing.json()["detail"]


@pytest.mark.slow
def test_what_the_operator_said_of_a_device_holds_over_a_restart(tmp_path: Path) -> None:
    with Process([HANDLERS], gpus="sim:2x24GiB", data_dir=tmp_path, grace_s="0s") as process:
        server = connect_to(process)
        post(server, "/devices/sim1/drain", status=200)
        server.http.patch("/v1/devices/sim0", json={"max_executors": 1})
        server.http.close()
    with Process([HANDLERS], gpus="sim:2x24GiB", data_dir=tmp_path, grace_s="0s") as process:
        server = connect_to(process)
        shown = devices(server)
        assert (shown["sim0"]["drained"], shown["sim1"]["drained"]) == (False, True)
        assert (shown["sim0"]["max_executors"], shown["sim1"]["max_executors"]) == (1, 8)
        job = server.wait_for_end(server.submit("small"))
        assert job["devices"] == ["sim0"]
        post(server, "/devices/sim1/resume", status=200)
        server.http.close()
    with Process([HANDLERS], gpus="sim:2x24GiB", data_dir=tmp_path, grace_s="0s") as process:
        server = connect_to(process)
        assert not devices(server)["sim1"]["drained"]
        server.http.close()
