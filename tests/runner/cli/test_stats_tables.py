"""Pure: the totals as tables, at the width of a plain terminal."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from runner.cli import stats_tables

NONE = {"p50": None, "p95": None}


def _stats(**changes: Any) -> dict[str, Any]:
    spent = {"device_s": 7_200.0, "byte_s": 7200.0 * (6 << 30), "attempts_on_devices": 12}
    nothing = {"device_s": 0.0, "byte_s": 0, "attempts_on_devices": 0}
    times = {"p50": 0.5, "p95": 20.0}
    return {
        "since": "2026-01-31T09:05:03.000Z",
        "spent_since": "2026-01-30T09:05:03.000Z",
        "counts": {"queued": 2, "running": 1},
        "throughput_per_s": 12.3456,
        "run_s": times,
        "wait_s": NONE,
        "retried": 3,
        "cancelled": 4,
        "failures": {"timeout": 5},
        "handlers": {"paint": {"runs": 12, "run_s": times, "wait_s": times, **spent}},
        "tenants": {
            "": {"weight": 1.0, "queued": 0, "running": 0, **nothing},
            "acme": {"weight": 2.5, "queued": 2, "running": 1, **spent},
        },
        "devices": {"gpu0": spent},
        **changes,
    }


def _drawn(found: dict[str, Any]) -> str:
    stream = io.StringIO()
    out = Console(file=stream, width=100, markup=False, highlight=False)
    for table in stats_tables.stats_tables(found):
        out.print(table)
    return stream.getvalue()


def test_totals_tell_how_much_and_whose() -> None:
    text = _drawn(_stats())
    for words in (
        "12.3 jobs/s",
        "2 queued, 1 running",
        "timeout 5",
        "500 ms",
        "(none)",
        "acme",
        "2.5",
        "gpu0",
    ):
        assert words in text
    assert text.count("2 h 0 m") == 3


def test_where_nothing_failed_it_says_so() -> None:
    assert "none" in _drawn(_stats(failures={}, tenants={}))
