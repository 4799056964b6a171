"""Pure: documents as tables, at the width of a plain terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from runner.cli import tables
from tests.runner.client.fake_server import ID, job

NOW = datetime(2026, 1, 31, 9, 5, 3, tzinfo=UTC)


def drawn(table: Table, width: int = 80) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, markup=False, highlight=False).print(table)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_jobs_fit_80_columns_with_their_whole_ids() -> None:
    found = [
        job("failed", reason="handler_error"),
        job("queued", reason="waiting_for_memory", handler="train_digits", started_at=None),
        job("running", reason="running", progress={"fraction": 0.62}, finished_at=None),
    ]
    lines = drawn(tables.jobs(found, NOW))
    assert sum(ID in line for line in lines) == 3
    text = "\n".join(lines)
    assert "handler_error" in text and "running 62%" in text and "…" not in text


def test_no_clock_runs_on_a_job_that_waits_for_its_retry() -> None:
    error = {"code": "timeout", "message": "timed out after 2 s", "retryable": True}
    times = {"started_at": "2026-01-31T09:05:00.000Z", "finished_at": None}
    waiting = job("queued", reason="retry_backoff", last_error=error, **times)
    (_, row) = drawn(tables.jobs([waiting], NOW))
    assert row.endswith("-") and "3.0 s" not in row
    shown = "\n".join(drawn(tables.job(waiting, NOW)))
    assert "took" not in shown
    assert "last error" in shown and "timeout: timed out after 2 s" in shown
    running = job("running", reason="running", **times)
    assert "3.0 s" in "\n".join(drawn(tables.jobs([running], NOW)))


def test_devices_show_memory_by_kind() -> None:
    device: dict[str, Any] = {"id": "gpu0", "name": "NVIDIA H100", "health": "ok", "executors": [{}]}
    kinds = {"total": 80, "free": 56, "reserved": 18, "draining": 3, "foreign": 2, "headroom": 1}
    for kind, gib in kinds.items():
        device[f"{kind}_bytes"] = gib << 30
    device["level"] = "processes"
    narrow = drawn(tables.devices([device]))
    assert narrow[0].split() == ["DEVICE", "FREE", "TOTAL", "LOADED", "HEALTH", "NAME"] and len(narrow) == 2
    text = "\n".join(drawn(tables.devices([device], wide=True), 120))
    for part in (*(f"{gib} GiB" for gib in kinds.values()), "processes", "NVIDIA H100"):
        assert part in text
    device |= {"free_bytes": 0, "short_bytes": 5 << 30}
    assert "-5 GiB" in "\n".join(drawn(tables.devices([device]), 120))


def test_ps_shows_jobs_of_running_executors_and_devices_without_any() -> None:
    running: dict[str, Any] = {
        "handler": "paint",
        "state": "running",
        "model": "xl",
        "resident_bytes": 1 << 30,
        "granted_bytes": 2 << 30,
        "charged_bytes": 3 << 30,
        "jobs": [ID],
    }
    idle: dict[str, Any] = {"handler": "echo", "state": "idle", "resident_bytes": None, "jobs": []}
    found: list[dict[str, Any]] = [
        {"id": "gpu0", "executors": [running, idle]},
        {"id": "cpu", "executors": []},
    ]
    lines = drawn(tables.executors(found))
    assert len(lines) == 4 and ID in lines[1]
    assert " ".join(lines[1].split()[1:-1]) == "paint xl 1 GiB running"
    assert "idle" in lines[2] and "nothing loaded" in lines[3]
    wide = drawn(tables.executors(found, wide=True), 100)
    assert " ".join(wide[1].split()[1:-1]) == "paint xl 1 GiB 2 GiB 3 GiB running"


def test_places_say_what_a_waiting_job_finds_where() -> None:
    found = [
        {"device": "gpu0", "free_bytes": 1 << 30, "needed_bytes": 6 << 30, "reason": "waiting_for_memory"},
        {"device": "cpu", "free_bytes": 0, "needed_bytes": 0, "reason": "ready"},
    ]
    lines = [" ".join(row.split()) for row in drawn(tables.placements(found))]
    assert lines == ["DEVICE FREE NEEDED THERE", "gpu0 1 GiB 6 GiB waiting for memory", "cpu 0 B - ready"]


def test_queues_say_which_are_paused() -> None:
    found = [{"name": "default", "paused": True, "counts": {"queued": 7}, "oldest_wait_s": 90}]
    shown = " ".join(drawn(tables.queues(found))[1].split())
    assert shown == "default paused 7 0 0 0 0 1 m 30 s -"


def test_handlers_say_what_they_need() -> None:
    assert tables.needs({"gpus": 0}, [{"vram": None}]) == "cpu"
    declared = {"gpus": 1, "vram_bytes": 6 << 30}
    assert tables.needs(declared, []) == "1 GPU, 6 GiB"
    rows = [{"vram": {"peak_bytes": 1, "grant_bytes": gib << 30}} for gib in (6, 3)]
    assert tables.needs(declared, rows[:1]) == "1 GPU, 6 GiB"
    assert tables.needs(declared, rows) == "1 GPU, 3 GiB to 6 GiB (measured)"
    unmeasured = {"vram": {"peak_bytes": None, "grant_bytes": None}}
    assert tables.needs({"gpus": 2}, [rows[1], unmeasured]) == "2 GPUs, 3 GiB (measured)"
    broken = {"name": "train", "state": "broken", "description": ""}
    assert "broken" in drawn(tables.handlers([broken]))[1]


def test_a_job_is_shown_with_its_error_and_without_control_characters() -> None:
    error = {"code": "handler_error", "message": "no \x1b[31mluck", "detail": {"traceback": "Traceback\n..."}}
    text = "\n".join(drawn(tables.job(job("failed", reason="handler_error", error=error), NOW)))
    assert "handler_error: no" in text and "Traceback" in text and "\x1b" not in text


def test_a_large_output_is_named_by_its_size() -> None:
    text = "\n".join(drawn(tables.job(job(output_bytes=3 << 20), NOW)))
    assert "3 MiB, omitted here" in text
