"""The running server: what jobs use of devices, and who it is put down to."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.openapi.stats_schema import Stats
from runner.testing import Server as Process
from tests.faults.server_fixture import Document, LiveServer
from tests.runner.coordinator.conftest import HANDLERS
from tests.runner.coordinator.server_client import connect_to, parse_time, wait_until_running

GIB = 1 << 30


def spent(document: Document) -> tuple[float, float]:
    return document["device_s"], document["byte_s"]


def seconds(job: Document) -> float:
    """From the start of its last attempt to its end."""
    return parse_time(job["finished_at"]) - parse_time(job["started_at"])


def stats(server: LiveServer) -> Document:
    return dict(server.http.get("/v1/stats").json())


@pytest.mark.slow
@pytest.mark.timed
def test_what_a_job_used_is_told_and_put_down_to_all_it_is_of(tmp_path: Path) -> None:
    with Process([HANDLERS], gpus="sim:2x24GiB", data_dir=tmp_path, grace_s="0s") as process:
        server = connect_to(process)
        cold = server.wait_for_end(server.submit("small", {}, tenant="acme"))
        gang = server.wait_for_end(server.submit("pair", {}, tenant="b"))
        warm = server.wait_for_end(server.submit("small", {}))
        free = server.wait_for_end(server.submit("echo", {}, tenant="acme"))
        assert spent(free) == (0.0, 0.0)
        # A cold start occupies its device from the order to load on.
        assert cold["device_s"] == pytest.approx(seconds(cold), abs=0.02)
        assert gang["device_s"] == pytest.approx(2 * seconds(gang), abs=0.04)
        assert 0 < warm["device_s"] < cold["device_s"]
        for job in (cold, gang, warm):
            assert job["byte_s"] == pytest.approx(4 * GIB * job["device_s"], rel=1e-3, abs=4 * GIB * 1e-5)
            (attempt,) = server.attempts(job["id"])
            assert (spent(attempt), attempt["granted_bytes"]) == (spent(job), 4 * GIB)
        told = stats(server)
        assert set(told["handlers"]) >= {"small", "pair", "echo"}
        assert told["handlers"]["echo"]["device_s"] == 0 and told["handlers"]["echo"]["runs"] == 1
        both = cold["device_s"] + warm["device_s"]
        assert told["handlers"]["small"]["device_s"] == pytest.approx(both, abs=1e-5)
        assert told["tenants"]["acme"]["device_s"] == pytest.approx(cold["device_s"], abs=1e-5)
        assert told["tenants"][""]["byte_s"] == pytest.approx(warm["byte_s"], rel=1e-6)
        used = {name: each["device_s"] for name, each in told["devices"].items()}
        assert set(used) == {"sim0", "sim1"}
        assert sum(used.values()) == pytest.approx(both + gang["device_s"], abs=1e-5)
        scraped = server.http.get("/metrics").text
        assert 'runner_tenant_device_seconds_total{tenant="b"}' in scraped
        assert 'runner_device_byte_seconds_total{device="sim0"}' in scraped
        server.http.close()
    with Process([HANDLERS], gpus="sim:2x24GiB", data_dir=tmp_path, grace_s="0s") as process:
        server = connect_to(process)
        again = stats(server)
        assert again["spent_since"] == told["spent_since"] < again["since"]
        for table in ("tenants", "devices"):
            assert {name: spent(each) for name, each in again[table].items()} == {
                name: spent(each) for name, each in told[table].items()
            }
        assert again["handlers"]["small"]["attempts_on_devices"] == 2
        assert again["handlers"]["small"]["runs"] == 0, "run times are told since the start"
        server.http.close()


CROWD = """
import time
from runner import Batch, handler

@handler("crowd", vram="4GiB", batch=Batch(max=4, wait="2s"))
def crowd(data: list[dict]) -> list[int]:
    time.sleep(0.4)
    return [len(data) for _ in data]
"""


@pytest.mark.slow
@pytest.mark.timed
def test_jobs_that_run_together_share_the_time_of_their_executor(tmp_path: Path) -> None:
    source = tmp_path / "crowd.py"
    source.write_text(CROWD)
    with Process([source], gpus="sim:1x24GiB", grace_s="0s") as process:
        server = connect_to(process)
        for _ in ("cold", "warm"):
            jobs = [server.wait_for_end(job_id) for job_id in server.submit_many("crowd", [{}] * 4)]
            assert [job["output"] for job in jobs] == [4] * 4
            whole_s = max(parse_time(job["finished_at"]) for job in jobs) - min(
                parse_time(job["started_at"]) for job in jobs
            )
            assert sum(job["device_s"] for job in jobs) == pytest.approx(whole_s, abs=0.1)
        assert all(0.05 < job["device_s"] < 0.2 for job in jobs), "each a part of the warm one"
        server.http.close()


def test_stats_are_what_the_openapi_document_says(server: LiveServer) -> None:
    server.wait_for_end(server.submit("small", {}, tenant="told"))
    told = Stats.model_validate(stats(server))
    assert not told.model_extra or set(told.model_extra) == {"stale_messages"}
    assert told.tenants["told"].device_s > 0 and told.handlers["small"].runs > 0


def test_stats_count_who_waits_and_who_runs_by_tenant(tmp_path: Path, gate: Path) -> None:
    config = tmp_path / "runner.toml"
    config.write_text("[tenants.acme]\nweight = 3\n[tenants.nobody]\nweight = 2\n")
    with Process([HANDLERS], gpus="sim:1x24GiB", grace_s="0s", config=config) as process:
        server = connect_to(process)
        first = server.submit("big", {"gate": str(gate)}, tenant="acme")
        wait_until_running(server, first)
        waiting = server.submit("big", {}, tenant="acme")
        later = server.submit("big", {}, tenant="b", delay_s=60)
        told = stats(server)["tenants"]
        assert {name: (each["weight"], each["queued"], each["running"]) for name, each in told.items()} == {
            "acme": (3.0, 1, 1),
            "b": (1.0, 1, 0),
            "nobody": (2.0, 0, 0),
        }
        gate.touch()
        server.wait_for_end(waiting)
        assert server.http.delete(f"/v1/jobs/{later}").status_code == 204
        server.http.close()


def test_an_attempt_that_is_cut_off_is_charged_for_its_time(server: LiveServer) -> None:
    job_id = server.submit("small", {"gate": "/nowhere/never"}, timeout_s=0.5)
    job = server.wait_for_end(job_id)
    assert job["state"] == "failed"
    assert job["device_s"] == pytest.approx(seconds(job), abs=0.05)
