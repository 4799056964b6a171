"""Pure: durations, sizes and backoffs as people write them, and sizes as they read them."""

from __future__ import annotations

import math
import re

from runner.bounds import BYTES_MAX, INT_MAX, SECONDS_MAX, STEPS_MAX, VALUE_CHARS_MAX
from runner.jobs.retry import Backoff

#: Compiled at the first use, so that an executor that parses nothing does not import `re`.
_NUMBER_AND_UNIT = r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)\s*"
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_BACKOFF_FIELDS = {"kind", "base_s", "max_s", "jitter"}
_BACKOFF_KINDS = ("fixed", "linear", "exponential")


def parse_seconds(value: float | str) -> float:
    """Return the seconds of a duration: a number, or text such as "500ms", "30s", "5m", "2h", "1d".

    Raises:
        ValueError: not a duration, negative, not finite or longer than ten years.
    """
    if isinstance(value, str):
        parts = _match_number(value)
        scale = _SECONDS.get(parts[2].lower()) if parts else None
        if parts is None or scale is None:
            raise ValueError(f'{_shown(value)} is not a duration; use seconds or "500ms", "30s", "5m", "2h"')
        value = float(parts[1]) * scale
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f'{_shown(value)} is not a duration; use seconds or text such as "30s"')
    elif not 0 <= value < math.inf:
        raise ValueError("a duration must be finite and not negative")
    # Compare before converting: an integer may be larger than any float.
    if value > SECONDS_MAX:
        raise ValueError("a duration is at most ten years")
    return float(value)


def parse_bytes(value: int | str) -> int:
    """Return the bytes of a size: a number, or text such as "512MiB", "6GiB", "1.5GB" (decimal).

    Raises:
        ValueError: not a size, negative, not a whole number of bytes, or more than 4 EiB.
    """
    if isinstance(value, str):
        found = _match_number(value)
        scale = _BYTES.get(found[2].lower()) if found else None
        if found is None or scale is None:
            raise ValueError(f'{_shown(value)} is not a size; use bytes or "512MiB", "6GiB"')
        value = int(found[1]) * scale if found[1].isdigit() else int(float(found[1]) * scale)
    elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f'{_shown(value)} is not a size; use a number of bytes or text such as "6GiB"')
    if value > BYTES_MAX:
        raise ValueError("a size is at most 4 EiB")
    return value


def _match_number(text: str) -> re.Match[str] | None:
    """Return the number and the unit of a text; None for anything else, and for a text that is too long."""
    return re.fullmatch(_NUMBER_AND_UNIT, text) if len(text) <= VALUE_CHARS_MAX else None


def _shown(value: object) -> str:
    """Return a value as an error message quotes it: the text may be megabytes long, an integer too."""
    if isinstance(value, str):
        return repr(value if len(value) <= VALUE_CHARS_MAX else f"{value[:VALUE_CHARS_MAX]}...")
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) <= INT_MAX):
        return repr(value)
    return f"a value of type {type(value).__name__}"


def format_bytes(count: float) -> str:
    """Return bytes in the largest unit that leaves a number of 1 or more: `512 B`, `1.5 GiB`, `24 GiB`."""
    value, unit = float(count), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, bigger
    digits = f"{value:.0f}" if unit == "B" or abs(value) >= 100 else f"{value:.1f}".removesuffix(".0")
    return f"{digits} {unit}"


def parse_backoff(value: object) -> Backoff:
    """Return a retry curve, see `Backoff` for its formulas.

    The value is seconds (the same each time), a list of seconds (the last one repeats), or
    `{kind: fixed|linear|exponential, base_s, max_s, jitter}`.

    Raises:
        ValueError: none of these, or one of its delays is not a duration.
    """
    if isinstance(value, Backoff):
        for wait_s in (value.base_s, value.max_s, *value.steps_s):
            parse_seconds(wait_s)
        return value
    if isinstance(value, (int, float, str)):
        base_s = parse_seconds(value)
        return Backoff(kind="fixed", base_s=base_s, max_s=max(base_s, 600.0), jitter=0.0)
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("a backoff list needs at least one number of seconds")
        if len(value) > STEPS_MAX:
            raise ValueError(f"a backoff list has at most {STEPS_MAX} delays")
        steps = tuple(parse_seconds(step) for step in value)
        return Backoff(kind="list", steps_s=steps, max_s=max(*steps, 600.0), jitter=0.0)
    if isinstance(value, dict):
        return _parse_backoff_table(value)
    known = "seconds, a list of seconds or {kind, base_s, ...}"
    raise ValueError(f"{_shown(value)} is not a backoff; use {known}")


def _parse_backoff_table(fields: dict[str, object]) -> Backoff:
    unknown = sorted(set(fields) - _BACKOFF_FIELDS, key=str)
    if unknown:
        raise ValueError(
            f"a backoff has no {_shown(str(unknown[0]))}; its fields are kind, base_s, max_s, jitter"
        )
    kind = fields.get("kind", "exponential")
    if kind not in _BACKOFF_KINDS:
        raise ValueError(f"kind of a backoff must be one of {', '.join(_BACKOFF_KINDS)}, not {_shown(kind)}")
    jitter = fields.get("jitter", 0.2)
    if isinstance(jitter, bool) or not isinstance(jitter, (int, float)) or not 0 <= jitter <= 1:
        raise ValueError(f"jitter of a backoff must be a number from 0 to 1, not {_shown(jitter)}")
    base_s = parse_seconds(fields.get("base_s", 1.0))  # type: ignore[arg-type]
    max_s = parse_seconds(fields.get("max_s", max(base_s, 600.0)))  # type: ignore[arg-type]
    return Backoff(kind=kind, base_s=base_s, max_s=max_s, jitter=float(jitter))  # type: ignore[arg-type]
