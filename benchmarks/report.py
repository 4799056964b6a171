"""Effect: prints the table of a run and writes it as JSON."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.figure import Figure, Figures, Target

TARGETS = (
    Target("no-op jobs, bulk", "huey", ">=", 6.0),
    Target("no-op jobs, bulk", None, ">=", 8_000),
    Target("no-op jobs, bulk", "pool", ">=", 0.8),
    Target("one job at a time, p50", "huey", "<=", 0.8),
    Target("one job at a time, p99", "huey", "<=", 1.0),
    Target("one job, added by the client, p50", None, "<=", 0.4),
    Target("1,000 progress events", None, "<=", 0.25),
    Target("cold start to first echo", None, "<=", 2.5),
    Target("jobs accepted one by one", "plain", ">=", 0.7),
    Target("jobs accepted one by one", None, ">=", 1_800),
    Target("jobs accepted in bulk", None, ">=", 20_000),
    Target("output events to all readers, while it runs", None, ">=", 1_000_000),
    Target("output events to all readers, after its end", None, ">=", 1_000_000),
    Target("commit beside a busy loop, p99", None, "<=", 10.0),
    Target("overhead on jobs of 100 ms", None, "<=", 2.0),
    Target("idle: CPU of all processes", None, "<=", 1.0),
    Target("idle: PSS of all processes", None, "<=", 200.0),
    Target("assign time, all against few", None, "<=", 1.3),
    Target("coordinator's RSS, all wait", None, "<=", 300.0),
    Target("restart after a kill, all wait: to ready", None, "<=", 5.0),
)


def show(console: Console, figures: Figures, machine: dict[str, Any]) -> bool:
    """Print everything; true where every target that could be judged is reached."""
    table = Table(title="Measured (median of the rounds, lowest and highest)")
    for heading in ("figure", "of", "median", "spread", "unit"):
        table.add_column(heading, justify="right" if heading in ("median", "spread") else "left")
    for figure in figures.by_key.values():
        table.add_row(figure.name, figure.subject, *_cells(figure))
    console.print(table)

    verdicts = Table(title="Targets")
    for heading in ("figure", "target", "reached", ""):
        verdicts.add_column(heading)
    all_ok = True
    for target in TARGETS:
        verdict = figures.judge(target)
        if verdict is None:
            continue
        all_ok &= verdict.ok
        verdicts.add_row(
            target.figure, target.text(), f"{verdict.reached:.3g}", "ok" if verdict.ok else "missed"
        )
    console.print(verdicts)
    console.print(
        f"{machine['processor']}, {machine['cores']:.0f} cores, Python {machine['python']}, "
        f"one fdatasync {machine['fdatasync_ms']} ms, SQLite synchronous=FULL on both sides"
    )
    return all_ok


def write(folder: Path, figures: Figures, machine: dict[str, Any]) -> Path:
    """Write the run to a new file in `folder` and give its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / time.strftime("bench-%Y%m%dT%H%M%SZ.json", time.gmtime())
    verdicts = [verdict for target in TARGETS if (verdict := figures.judge(target))]
    document = {
        "machine": machine,
        "figures": [_as_object(figure) for figure in figures.by_key.values()],
        "targets": verdicts,
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    return path


def _cells(figure: Figure) -> tuple[str, str, str]:
    return _number(figure.median), f"{_number(figure.low)} - {_number(figure.high)}", figure.unit


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _as_object(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "subject": figure.subject,
        "unit": figure.unit,
        "median": figure.median,
        "low": figure.low,
        "high": figure.high,
        "values": figure.values,
    }
