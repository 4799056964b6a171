"""Pure: points in time as text: RFC 3339, UTC, milliseconds, Z."""

from __future__ import annotations

import datetime as dt
from functools import lru_cache

#: UTC epoch seconds of the last second of the year 9999.
_LAST_SECOND = 253_402_300_799


@lru_cache(maxsize=256)
def _format_second(whole: int) -> str:
    return dt.datetime.fromtimestamp(whole, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")


def format_rfc3339(at: float) -> str:
    """Return `2026-01-31T09:05:00.250Z` for UTC epoch seconds; milliseconds are truncated, not rounded.

    Never fails: times come from files and other processes, and one invalid time must not fail the whole list
    that contains it. A time outside the years 1970 to 9999 gives their first or last second, NaN the first.
    """
    # The order of the arguments matters: it turns NaN into 0.
    at = min(max(0.0, at), _LAST_SECOND)
    whole = int(at)
    return f"{_format_second(whole)}.{int((at - whole) * 1000):03d}Z"


def parse_rfc3339(text: str) -> float:
    """Return the UTC epoch seconds of an RFC 3339 text; without an offset it is UTC.

    Raises:
        ValueError: not a date and time.
    """
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.timestamp()
