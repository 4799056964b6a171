"""Pure: formats the server's documents as tables.

Texts of jobs and handlers are untrusted: they are printed without control characters and markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from runner.cli.formatting import (
    format_age,
    format_duration,
    format_progress,
    format_size,
    one_line,
    took_s,
)
from runner.formats.printable import printable, printable_json

Document = Mapping[str, Any]

COLORS = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "ok": "green",
    "broken": "red",
    "describing": "yellow",
    "paused": "yellow",
    "drained": "yellow",
}
#: Reasons that add nothing to their state.
_PLAIN_REASONS = (None, "running", "ready")


def jobs(found: Iterable[Document], now: datetime) -> Table:
    """Return one row per job: id, state, handler, age and run time."""
    table = new_table("ID", "STATE", "HANDLER", "AGE", "TOOK")
    for job in found:
        took = took_s(job, now)
        table.add_row(
            str(job["id"]),
            state(job),
            one_line(job["handler"], 40),
            format_age(job.get("created_at"), now),
            format_duration(took),
        )
    for column in (0, 3, 4):
        table.columns[column].no_wrap = True
    return table


def state(job: Document) -> Text:
    """Return a job's state, with its progress, or with the reason if that says more."""
    word = str(job["state"])
    text = Text(word, style=COLORS.get(word, ""))
    reason, fraction = job.get("reason"), (job.get("progress") or {}).get("fraction")
    if reason not in _PLAIN_REASONS and reason != word:
        text.append(f" {reason}", style="dim")
    elif word == "running" and fraction is not None:
        text.append(f" {fraction:.0%}", style="dim")
    return text


def devices(found: Iterable[Document], *, wide: bool = False) -> Table:
    """Return one row per device: six columns, which fit 80, or with every kind of memory if `wide`.

    The memory columns of the wide table add up to TOTAL; ATTRIBUTION is the level of memory attribution. A
    negative FREE means that other programs took granted memory.
    """
    kinds = ("reserved", "draining", "foreign", "headroom", "total") if wide else ("total",)
    more = (
        *(kind.upper() for kind in kinds),
        "LOADED",
        *(("ATTRIBUTION",) if wide else ()),
        "HEALTH",
        "NAME",
    )
    table = new_table("DEVICE", "FREE", *more)
    for device in found:
        health = str(device.get("health") or "ok")
        if device.get("drained"):
            health = "drained" if health == "ok" else f"drained, {health}"
        free = format_size(device.get("free_bytes"))
        if device.get("short_bytes"):
            # Other programs took memory that is granted.
            free = f"-{format_size(device['short_bytes'])}"
        table.add_row(
            str(device["id"]),
            free,
            *(format_size(device.get(f"{kind}_bytes")) for kind in kinds),
            str(len(device.get("executors") or ())),
            *((str(device.get("level") or ""),) if wide else ()),
            Text(one_line(health, 40), style=COLORS.get(health, "red")),
            one_line(device.get("name") or "", 40 if wide else 28),
        )
    for column in table.columns[:-2]:
        column.no_wrap = True
    return table


def executors(found: Iterable[Document], *, wide: bool = False) -> Table:
    """Return one row per executor, grouped by device, with its model and current jobs.

    MEMORY is what the executor was seen to use; `wide` adds what it was granted and what it is charged.
    """
    kinds = ("resident", "granted", "charged") if wide else ("resident",)
    table = new_table("DEVICE", "HANDLER", "MEMORY", *(kind.upper() for kind in kinds[1:]), "STATE", "JOBS")
    for device in found:
        loaded = device.get("executors") or ()
        for number, executor in enumerate(loaded):
            names = (one_line(executor.get(name) or "", 40) for name in ("handler", "model"))
            table.add_row(
                str(device["id"]) if number == 0 else "",
                " ".join(filter(None, names)),
                *(format_size(executor.get(f"{kind}_bytes")) for kind in kinds),
                str(executor.get("state") or ""),
                "\n".join(map(str, executor.get("jobs") or ())) or Text("-", style="dim"),
            )
        if not loaded:
            table.add_row(str(device["id"]), Text("nothing loaded", style="dim"))
    for column in (0, 2, len(table.columns) - 2, len(table.columns) - 1):
        table.columns[column].no_wrap = True
    return table


def queues(found: Iterable[Document]) -> Table:
    """Return one row per queue with its counts by state."""
    words = ("queued", "running", "succeeded", "failed", "cancelled")
    table = new_table("QUEUE", "", *(word.upper() for word in words), "OLDEST", "RUN")
    for queue in found:
        counts = queue.get("counts") or {}
        table.add_row(
            one_line(queue["name"]),
            Text("paused", style=COLORS["paused"]) if queue.get("paused") else "",
            *(str(counts.get(word, 0)) for word in words),
            format_duration(queue.get("oldest_wait_s")),
            format_duration(queue.get("avg_run_s")),
        )
    return table


def handlers(found: Iterable[Document]) -> Table:
    """Return one row per handler: state, needs and learned figures."""
    table = new_table("HANDLER", "STATE", "NEEDS", "RUNS", "P50", "WHAT IT IS")
    for handler in found:
        word, figures = str(handler["state"]), handler.get("figures") or {}
        table.add_row(
            one_line(handler["name"]),
            Text(word, style=COLORS.get(word, "")),
            needs(handler.get("options") or {}, handler.get("learned") or []),
            str(figures.get("runs") or 0),
            format_duration((figures.get("run_s") or {}).get("p50")),
            one_line(handler.get("description") or "", 60),
        )
    return table


def checked_handlers(found: Iterable[Document]) -> Table:
    """Return one row per handler that was described without a server: state, needs and location."""
    table = new_table("HANDLER", "STATE", "NEEDS", "FROM", "WHAT IT IS")
    for handler in found:
        word, options = str(handler["state"]), handler["options"]
        table.add_row(
            one_line(handler["name"]),
            Text(word, style=COLORS.get(word, "")),
            "" if options is None else needs(options, []),
            one_line(handler["source"]),
            one_line(handler["description"], 60),
        )
    return table


def needs(options: Document, learned: Sequence[Document]) -> str:
    """Return the memory that one executor of a handler needs: as declared, or the learned range."""
    gpus, vram, ram = options.get("gpus") or 0, options.get("vram_bytes"), options.get("ram_bytes")
    parts = [] if gpus == 0 else ["1 GPU" if gpus == 1 else f"{gpus} GPUs"]
    measured = [row["vram"]["grant_bytes"] for row in learned if row["vram"] and row["vram"]["peak_bytes"]]
    grants = sorted({grant for grant in measured if grant})
    if gpus and grants and grants != [vram]:
        span = dict.fromkeys((format_size(grants[0]), format_size(grants[-1])))
        parts.append(f"{' to '.join(span)} (measured)")
    elif vram:
        parts.append(format_size(vram))
    if ram:
        parts.append(f"{format_size(ram)} RAM")
    return ", ".join(parts) or "cpu"


def attempts(found: Iterable[Document]) -> Table:
    """Return one line per attempt of a job."""
    table = new_table("ATTEMPT", "DEVICE", "GRANTED", "LOAD", "RUN", "PEAK", "ERROR")
    for attempt in found:
        error = attempt.get("error")
        table.add_row(
            str(attempt["attempt"]),
            ", ".join(attempt.get("devices") or ()) or "-",
            format_size(attempt.get("granted_bytes") or None) + (" alone" if attempt.get("alone") else ""),
            format_duration(attempt.get("load_s")),
            format_duration(attempt.get("run_s")),
            format_size(attempt.get("vram_peak_bytes")),
            Text(f"{error['code']}: {one_line(error['message'], 70)}" if error else "", style="red"),
        )
    return table


def placements(found: Iterable[Document]) -> Table:
    """Return one row per device for a waiting job: free bytes, needed bytes, and what prevents the start."""
    table = new_table("DEVICE", "FREE", "NEEDED", "THERE")
    for device in found:
        needed = device.get("needed_bytes")
        reason = str(device.get("reason") or "ready").replace("_", " ")
        table.add_row(
            one_line(device["device"]),
            format_size(device.get("free_bytes")),
            format_size(needed) if needed else "-",
            one_line(reason),
        )
    return table


def job(document: Document, now: datetime) -> Table:
    """Return everything of one job, a line per field."""
    table = new_field_table()
    for label, value in _fields(document, now):
        table.add_row(label, value)
    return table


def _fields(job: Document, now: datetime) -> Iterable[tuple[str, str | Text]]:
    """Yield (label, text) for every field of a job that has a value."""
    yield "id", str(job["id"])
    yield "state", state(job)
    yield "handler", one_line(job["handler"])
    yield "queue", f"{one_line(job['queue'])}, priority {job.get('priority')}"
    yield "created", f"{job.get('created_at')} ({format_age(job.get('created_at'), now)} ago)"
    for label in ("started", "finished"):
        if job.get(f"{label}_at"):
            yield label, f"{job[f'{label}_at']} ({format_age(job[f'{label}_at'], now)} ago)"
    took = took_s(job, now)
    if took is not None:
        yield "took", format_duration(took)
    yield "attempt", f"{job.get('attempt')}, {job.get('retries_left')} retries left"
    if job.get("devices"):
        yield "devices", ", ".join(job["devices"])
    if job.get("vram_bytes"):
        yield "vram", format_size(job["vram_bytes"])
    if job.get("progress"):
        yield "progress", format_progress(job["progress"])
    if job.get("tenant"):
        yield "tenant", one_line(job["tenant"])
    if job.get("tags"):
        yield "tags", one_line(", ".join(job["tags"]))
    for label in ("metadata", "input", "output", "error", "last_error"):
        yield from _json_field(job, label)


def _json_field(job: Document, label: str) -> Iterable[tuple[str, str]]:
    """Yield the input, output or error of a job; a value that the server left out is shown by its size."""
    value, count = job.get(label), int(job.get(f"{label}_bytes") or 0)
    if value is None and count > 64 << 10:
        yield label, f"{format_size(count)}, omitted here"
    elif label in ("error", "last_error") and value:
        detail = value.get("detail")
        trace = detail.get("traceback") if isinstance(detail, Mapping) else None
        lines = filter(None, [f"{value['code']}: {value['message']}", trace])
        yield label.replace("_", " "), printable("\n".join(lines))
    elif value not in (None, {}, []) or (label == "output" and job["state"] == "succeeded"):
        yield label, printable_json(json.dumps(value, ensure_ascii=False, indent=2))


def new_table(*names: str) -> Table:
    """Return an empty table with these columns; long cells wrap and are never cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        # Wrap long cells instead of cutting them: ids and error messages are copied from here.
        table.add_column(name, overflow="fold")
    return table


def new_field_table() -> Table:
    """Return an empty table of two columns, labels and values, without a header."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table
