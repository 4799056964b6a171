"""Pure: formats values for people: sizes, durations, ages, progress, JSON and one-line text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from runner.formats.printable import printable
from runner.formats.units import format_bytes

#: Longest line in a list of numbers, in columns.
NUMBERS_WIDTH = 96


def format_size(count: float | None) -> str:
    """Return bytes as `format_bytes` does (`1.5 GiB`); `-` for None."""
    return "-" if count is None else format_bytes(count)


def format_duration(seconds: float | None) -> str:
    """Return a duration: `340 ms`, `12.5 s`, `3 m 20 s`, `2 h 5 m`, `4 d 3 h`; `-` for None."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for big, small, divisor in (("m", "s", 60), ("h", "m", 3600), ("d", "h", 86400)):
        if whole < {"m": 3600, "h": 86400, "d": 1 << 62}[big]:
            below = {"s": 1, "m": 60, "h": 3600}[small]
            return f"{whole // divisor} {big} {whole % divisor // below} {small}"
    return f"{whole} s"


def format_age(at: str | None, now: datetime) -> str:
    """Return the age of an RFC 3339 time in one unit: `12 s`; `in 5 m` for a future time; `-` for None."""
    if not at:
        return "-"
    past = (now - datetime.fromisoformat(at).astimezone(UTC)).total_seconds()
    count, unit = abs(past), "s"
    for divisor, bigger in ((60, "m"), (60, "h"), (24, "d")):
        if count < divisor:
            break
        count, unit = count / divisor, bigger
    return f"{count:.0f} {unit}" if past >= -0.5 else f"in {count:.0f} {unit}"


def took_s(job: Mapping[str, Any], now: datetime) -> float | None:
    """Return the seconds from a job's start to its end or to `now`.

    None before its start, and while it waits for its next attempt.
    """
    if job.get("state") == "queued":
        return None
    return elapsed_s(job.get("started_at"), job.get("finished_at"), now)


def elapsed_s(start: str | None, end: str | None, now: datetime) -> float | None:
    """Return the seconds from `start` to `end` (RFC 3339), or to `now` if there is no end.

    None if there is no start.
    """
    if not start:
        return None
    until = datetime.fromisoformat(end) if end else now
    return max(0.0, (until - datetime.fromisoformat(start)).total_seconds())


def one_line(text: object, width: int = 0) -> str:
    """Return the printable text of a value on one line, cut to `width` columns (0: not cut)."""
    flat = " ".join(printable(text).split())
    return flat[: width - 1] + "…" if width and len(flat) > width else flat


def format_progress(document: Mapping[str, Any]) -> str:
    """Return a progress event's data on one line: `62%  31/50  epoch 5  loss 0.12`."""
    done, total, fraction = (document.get(name) for name in ("done", "total", "fraction"))
    parts = [] if fraction is None else [f"{fraction:.0%}"]
    # A total of 100 would only repeat the percentage.
    if total not in (None, 100) and done is not None:
        parts.append(f"{done:g}/{total:g}")
    if document.get("message"):
        parts.append(one_line(document["message"], 60))
    for name, value in (document.get("details") or {}).items():
        shown = f"{value:.4g}" if isinstance(value, float) else one_line(value, 30)
        parts.append(f"{one_line(name)} {shown}")
    return "  ".join(parts)


def format_json(value: Any, margin: str = "") -> str:
    """Return indented JSON. Lists of numbers share lines: a vector would otherwise fill ten screens.

    `margin` is the indentation of the lines after the first.
    """
    inner = margin + "  "
    if isinstance(value, Mapping) and value:
        rows = [
            f"{json.dumps(str(key), ensure_ascii=False)}: {format_json(one, inner)}"
            for key, one in value.items()
        ]
        opened, closed = "{", "}"
    elif isinstance(value, (list, tuple)) and value:
        if all(type(one) in (int, float) for one in value):
            return _numbers(value, margin)
        rows = [format_json(one, inner) for one in value]
        opened, closed = "[", "]"
    else:
        return json.dumps(value, ensure_ascii=False)
    return f"{opened}\n{inner}" + f",\n{inner}".join(rows) + f"\n{margin}{closed}"


def _numbers(value: Sequence[float], margin: str) -> str:
    """Return a list of numbers on as few lines as `NUMBERS_WIDTH` allows."""
    inner = margin + "  "
    rows, row = [], ""
    for text in map(json.dumps, value):
        if row and len(inner) + len(row) + len(text) > NUMBERS_WIDTH:
            rows.append(row)
            row = text
        else:
            row = f"{row}, {text}" if row else text
    if not rows:
        return f"[{row}]"
    return f"[\n{inner}" + f",\n{inner}".join([*rows, row]) + f"\n{margin}]"
