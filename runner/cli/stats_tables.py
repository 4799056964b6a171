"""Pure: formats the document of /v1/stats as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from runner.cli.formatting import format_duration, format_size, one_line
from runner.cli.tables import new_table

Document = Mapping[str, Any]


def stats_tables(found: Document) -> Iterator[Table]:
    """Yield the totals, then usage by handler, by tenant and by device."""
    yield _totals(found)
    handlers = new_table("HANDLER", "RUNS", "P50", "P95", "WAIT P50", "P95", "ON DEVICES", "GRANTED")
    for name, own in found["handlers"].items():
        handlers.add_row(
            one_line(name), str(own["runs"]), *_times(own["run_s"]), *_times(own["wait_s"]), *_usage(own)
        )
    yield handlers
    tenants = new_table("TENANT", "WEIGHT", "QUEUED", "RUNNING", "ON DEVICES", "GRANTED")
    for name, own in found["tenants"].items():
        numbers = (f"{own['weight']:g}", str(own["queued"]), str(own["running"]))
        tenants.add_row(one_line(name) or "(none)", *numbers, *_usage(own))
    yield tenants
    devices = new_table("DEVICE", "ON DEVICES", "GRANTED")
    for name, own in found["devices"].items():
        devices.add_row(one_line(name), *_usage(own))
    yield devices


def _totals(found: Document) -> Table:
    """Return the table of counts, throughput and failures since the server's start."""
    table = new_table("", "")
    table.show_header = False
    failures = ", ".join(f"{code} {count}" for code, count in sorted(found["failures"].items()))
    rows = {
        "since": found["since"],
        "now": ", ".join(f"{count} {state}" for state, count in found["counts"].items()),
        "throughput": f"{found['throughput_per_s']:.3g} jobs/s",
        "run p50 / p95": " / ".join(_times(found["run_s"])),
        "wait p50 / p95": " / ".join(_times(found["wait_s"])),
        "retried": str(found["retried"]),
        "cancelled": str(found["cancelled"]),
        "failures": failures or "none",
        "device usage since": found["spent_since"],
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _times(percentiles: Document) -> tuple[str, str]:
    """Return the median and the 95th percentile as text."""
    return format_duration(percentiles["p50"]), format_duration(percentiles["p95"])


def _usage(own: Document) -> tuple[str, str]:
    """Return device time and granted bytes times seconds as text."""
    return format_duration(own["device_s"]), f"{format_size(int(own['byte_s']))} s" if own["byte_s"] else "-"
