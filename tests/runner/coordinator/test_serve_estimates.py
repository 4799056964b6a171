"""The running server: what jobs took is learned by model and size, shown, and known after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.stores.sqlite.sqlite_store import SqliteStore
from runner.testing import Server as Process
from tests.faults.server_fixture import Document, LiveServer, until
from tests.runner.coordinator.conftest import HANDLERS
from tests.runner.coordinator.server_client import connect_to, error_code, executors, wait_until_running

pytestmark = pytest.mark.slow

GIB = 1 << 30


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Process, LiveServer]]:
    with Process([HANDLERS], gpus="sim:1x24GiB", data_dir=folder, grace_s="0s") as process:
        server = connect_to(process)
        yield process, server
        server.http.close()


def learned(server: LiveServer, handler: str) -> dict[tuple[str, str], Document]:
    rows = until(lambda: server.http.get(f"/v1/handlers/{handler}").json().get("learned"), "it is described")
    return {(row["model"], row["size"]): row for row in rows}


def paint(server: LiveServer, model: str, width: int, hold: str, **more: str) -> Document:
    data = {"checkpoint": {"name": model}, "width": width, "height": width, "hold": hold, **more}
    return server.wait_for_end(server.submit("models", data))


def test_what_was_learned_is_shown_by_model_and_size_and_outlives_the_server(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, server):
        for model, width, hold in (("a", 500, "1GiB"), ("a", 1000, "2GiB"), ("b", 500, "3GiB")):
            assert paint(server, model, width, hold)["state"] == "succeeded"
        before = learned(server, "models")
        assert list(before) == [("b", "512,512"), ("b", ""), ("a", "1024,1024"), ("a", "512,512"), ("a", "")]
        assert before["a", "1024,1024"]["vram"]["peak_bytes"] == 2 * GIB
        assert before["a", ""]["samples"] == 2
        for row in before.values():
            assert row["load_s"] > 0 and row["run_s"]["p90"] > 0 and row["out_of_memory"] == 0
            # As it was declared: one job is no evidence that less is enough.
            assert row["vram"]["grant_bytes"] == 4 * GIB
    with serving(tmp_path) as (_, server):
        assert learned(server, "models") == before


def test_who_took_more_than_declared_is_granted_more_from_then_on(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, server):
        # It was given more and more in vain: that is no reason to give the others as much.
        assert error_code(paint(server, "a", 500, "30GiB", gate="/nowhere")) == "device_out_of_memory"
        row = learned(server, "models")["a", "512,512"]
        assert row["out_of_memory"] > 1 and row["vram"]["grant_bytes"] == 5 * GIB
        # There is room, so it may go over its grant: that is how much the others will be granted.
        assert paint(server, "a", 500, "6GiB")["state"] == "succeeded"
        # The warm one goes on: the margin is no reason to load another.
        warm = paint(server, "a", 500, "6GiB")["output"]
        assert warm["granted"] == 6 * GIB
        server.http.post("/v1/handlers/models/unload", json={})
        until(lambda: not executors(server, "models"), "it is unloaded")
        row = learned(server, "models")["a", "512,512"]
        assert row["vram"]["peak_bytes"] == 6 * GIB and row["vram"]["grant_bytes"] > 6 * GIB
        assert paint(server, "a", 500, "6GiB")["output"]["granted"] == row["vram"]["grant_bytes"]
        # Written after a while, not only at the end.
        kept = until(lambda: stored(tmp_path), "it is in the store", within_s=15)
        assert kept == ["learned/models/models/a"]
        process.kill()
        process.start()
        again = connect_to(process)
        assert learned(again, "models")["a", "512,512"]["vram"]["grant_bytes"] >= 6 * GIB
        again.http.close()


def test_who_waits_for_a_warm_executor_gets_another_where_that_one_takes_long(
    tmp_path: Path, gate: Path
) -> None:
    with serving(tmp_path) as (_, server):
        for _ in range(3):
            paint(server, "a", 500, "1GiB")
        data = {"checkpoint": {"name": "a"}, "width": 500, "height": 500, "gate": str(gate)}
        first, second = (server.submit("models", data) for _ in range(2))
        # All before them were short, so the second one waits a little for the first; but not for ever.
        wait_until_running(server, first)
        wait_until_running(server, second)
        assert len(executors(server, "models")) == 2
        gate.touch()
        assert server.wait_for_end(first)["state"] == server.wait_for_end(second)["state"] == "succeeded"


def stored(folder: Path) -> list[str]:
    """The names of what was learned, as they stand in the store."""
    store = SqliteStore(str(folder / "runner.db"), read_only=True)
    try:
        return sorted(store.load_values("learned/"))
    finally:
        store.close()
