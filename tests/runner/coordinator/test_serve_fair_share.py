"""The running server: tenants share devices by their weights, and no flood holds up a newcomer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.server_fixture import Document, LiveServer, until
from tests.runner.coordinator.server_client import parse_time, set_paused

pytestmark = pytest.mark.slow

Serve = Callable[..., LiveServer]


def stats(server: LiveServer) -> Document:
    return dict(server.http.get("/v1/stats").json())


def flood(server: LiveServer, handler: str, tenant: str, count: int, seconds: float) -> list[str]:
    return server.submit_many(handler, [{"s": seconds}] * count, tenant=tenant)


def started_before(server: LiveServer, tenant: str, moment: float) -> int:
    """How many of a tenant's jobs had started by then."""
    jobs = server.http.get(f"/v1/jobs?tenant={tenant}&limit=500").json()["data"]
    return sum(job["started_at"] is not None and parse_time(job["started_at"]) < moment for job in jobs)


def test_tenants_have_devices_by_their_weights(serve: Serve, tmp_path: Path) -> None:
    config = tmp_path / "runner.toml"
    config.write_text("[tenants.heavy]\nweight = 3\n")
    server = serve(gpus="sim:2x24GiB", config=config)
    # One load each: from then on both tenants use the same warm executors.
    set_paused(server, "default", True)
    flood(server, "stint", "light", 60, 0.06)
    flood(server, "stint", "heavy", 60, 0.06)
    set_paused(server, "default", False)

    def used() -> Document | None:
        tenants: Document = stats(server)["tenants"]
        return (
            tenants
            if sum(tenants[each]["attempts_on_devices"] for each in ("light", "heavy")) >= 60
            else None
        )

    tenants = until(used, "60 jobs have ended", within_s=30)
    assert tenants["heavy"]["queued"] > 0 and tenants["light"]["queued"] > 0, "both still wait"
    ratio = tenants["heavy"]["device_s"] / tenants["light"]["device_s"]
    assert ratio == pytest.approx(3, rel=0.2)


def test_a_newcomer_waits_for_no_more_of_a_flood_than_what_runs(serve: Serve) -> None:
    server = serve(gpus="sim:2x24GiB")
    flood(server, "stint", "flood", 100, 0.1)
    until(
        lambda: stats(server)["tenants"]["flood"]["attempts_on_devices"] >= 10, "the flood is on", within_s=15
    )
    newcomer = server.submit("stint", {"s": 0.1}, tenant="new")
    job = server.wait_for_end(newcomer)
    came, began = parse_time(job["created_at"]), parse_time(job["started_at"])
    passed = started_before(server, "flood", began) - started_before(server, "flood", came)
    assert passed <= 2
    assert stats(server)["tenants"]["flood"]["queued"] > 50


def test_also_where_the_flood_has_all_that_is_loaded(serve: Serve) -> None:
    server = serve(gpus="sim:1x24GiB")
    flood(server, "stint", "flood", 100, 0.05)
    until(
        lambda: stats(server)["tenants"]["flood"]["attempts_on_devices"] >= 5, "the flood is on", within_s=15
    )
    job = server.wait_for_end(server.submit("stint2", {"s": 0.05}, tenant="new"))
    came, began = parse_time(job["created_at"]), parse_time(job["started_at"])
    passed = started_before(server, "flood", began) - started_before(server, "flood", came)
    # So many may go before it out of turn, as they spare a load, and one or two run or are on their way.
    assert passed <= 8 + 2
    assert stats(server)["tenants"]["flood"]["queued"] > 30


def test_on_the_cpu_tenants_share_executors(serve: Serve) -> None:
    server = serve(gpus="none")
    server.submit_many("steady", [{}] * 200, tenant="flood")
    job = server.wait_for_end(server.submit("steady", {}, tenant="new"))
    assert job["state"] == "succeeded" and job["device_s"] == 0
