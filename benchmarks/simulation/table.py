"""Effect: prints the figures of policies side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_COLUMNS = (
    ("mean", "mean_wait_s"),
    ("p50", "p50_wait_s"),
    ("p95", "p95_wait_s"),
    ("max", "max_wait_s"),
)


def show(console: Console, title: str, load: float | None, policies: Mapping[str, Mapping[str, Any]]) -> None:
    """One table: a row a policy, waits in seconds."""
    at = "" if load is None else f", offered load {load:g}"
    table = Table(title=f"{title}{at}: waits in seconds")
    table.add_column("policy")
    for heading, _ in _COLUMNS:
        table.add_column(heading, justify="right")
    for heading in ("2+ GPUs", "4+ GPUs", "cold", "overtaken"):
        table.add_column(heading, justify="right")
    for name, figures in policies.items():
        table.add_row(
            name,
            *(_number(figures[key]) for _, key in _COLUMNS),
            *(_number(figures[group]["mean_wait_s"]) for group in ("big", "big4")),
            *(_number(figures[key]) for key in ("cold_starts", "max_overtaken")),
        )
    console.print(table)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
