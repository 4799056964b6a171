"""Effect: a run's figures, as tables for people and as one JSON document."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.soak.resource_sampler import RoleUsage
from benchmarks.soak.soak import Soak

MIB = 1 << 20


def build_document(soak: Soak) -> dict[str, Any]:
    """All figures of a run."""
    context, sampler = soak.context, soak.resource_sampler
    first, last = soak.levels
    return {
        "seed": soak.options.seed,
        "minutes": soak.options.minutes,
        "lasted_s": round(soak.lasted_s, 1),
        "rate": soak.options.rate,
        "cpu_share_of_a_core": round(soak.cpu_share, 3),
        "jobs": dict(context.ledger.counts),
        "counts": dict(sorted(context.counts.items())),
        "requests": context.http.requests,
        "starts": context.server.starts,
        "kills": dict(sorted(context.kills.items())),
        "recovery_s": {what: _spread(times) for what, times in sorted(context.recoveries.items())},
        "roles": {name: _role(role) for name, role in sorted(sampler.roles.items())},
        "roles_calm": {name: _role(role) for name, role in sorted(sampler.calm.items())},
        "driver": _role(sampler.driver),
        "disk_most_bytes": sampler.disk_most,
        "idle_first": {role: [level.descriptors, level.threads] for role, level in sorted(first.items())},
        "idle_last": {role: [level.descriptors, level.threads] for role, level in sorted(last.items())},
        "judged": {**soak.verdict.counts, "wrong": len(soak.verdict.wrong)},
        "findings": context.findings,
    }


def show(console: Console, figures: dict[str, Any]) -> None:
    """The tables."""
    console.print(
        f"\n{figures['lasted_s'] / 60:.1f} minutes, seed {figures['seed']}, {figures['requests']} requests, "
        f"{figures['starts']} starts, {figures['cpu_share_of_a_core']:.0%} of one core, "
        f"{figures['disk_most_bytes'] / MIB:.0f} MiB of disk at most"
    )
    _pairs(console, "jobs", {**figures["jobs"], **figures["counts"]})
    _pairs(console, "judged in the recorded history", figures["judged"])
    table = Table("done to it", "times", "jobs again after: median s", "worst s", title="kills and recovery")
    for what, times in figures["recovery_s"].items():
        table.add_row(
            what, str(figures["kills"].get(what, times["count"])), *map(_number, _median_and_worst(times))
        )
    console.print(table)
    table = Table(
        "process", "RSS MiB", "most", "bytes/job", "MiB/hour", "calm bytes/job", "calm MiB/hour",
        "descriptors idle first", "last", "threads first", "last", title="memory, descriptors, threads",
    )  # fmt: skip
    for name, role in [*figures["roles"].items(), ("driver", figures["driver"])]:
        calm = figures["roles_calm"].get(name, {})
        before, after = figures["idle_first"].get(name, ("", "")), figures["idle_last"].get(name, ("", ""))
        table.add_row(
            name, _number(role["rss_last_mib"]), _number(role["rss_most_mib"]),
            _number(role["bytes_per_job"]), _number(role["mib_per_hour"]),
            _number(calm.get("bytes_per_job")), _number(calm.get("mib_per_hour")),
            str(before[0]), str(after[0]), str(before[1]), str(after[1]),
        )  # fmt: skip
    console.print(table)


def print_violations(console: Console, figures: dict[str, Any], folder: Path, options: str) -> int:
    """The broken invariants, and how to see them again; the exit code."""
    if not figures["findings"]:
        console.print("every invariant held")
        return 0
    console.print(f"\n{figures['counts']['findings']} times an invariant was broken:")
    for finding in figures["findings"]:
        console.print(f"  {finding}", markup=False, soft_wrap=True)
    console.print(f"data, stamps, history and the server's log are kept in {folder}", soft_wrap=True)
    console.print(f"again: python -m benchmarks.soak {options}", soft_wrap=True)
    return 1


def write(path: Path, figures: dict[str, Any]) -> None:
    """As JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _role(role: RoleUsage) -> dict[str, Any]:
    per_job, per_hour = role.per_job.value, role.per_hour.value
    return {
        "samples": role.per_job.count,
        "rss_last_mib": round(role.rss_last / MIB, 1),
        "rss_most_mib": round(role.rss_most / MIB, 1),
        "bytes_per_job": None if per_job is None else round(per_job),
        "mib_per_hour": None if per_hour is None else round(per_hour / MIB, 2),
        "descriptors_most": role.descriptors_most,
        "threads_most": role.threads_most,
    }


def _spread(times: list[float]) -> dict[str, float]:
    return {
        "count": len(times),
        "median": round(statistics.median(times), 3),
        "worst": round(max(times), 3),
    }


def _median_and_worst(times: dict[str, float]) -> tuple[float, float]:
    return times["median"], times["worst"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,}"


def _pairs(console: Console, title: str, counts: dict[str, int]) -> None:
    table = Table(title, "")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    console.print(table)
