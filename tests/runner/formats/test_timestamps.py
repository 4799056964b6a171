"""Points in time as text."""

from __future__ import annotations

import math

import pytest

from runner.formats.timestamps import format_rfc3339, parse_rfc3339

FIRST = "1970-01-01T00:00:00.000Z"
LAST = "9999-12-31T23:59:59.000Z"


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (1769850300.25, "2026-01-31T09:05:00.250Z"),
        (1769850300.9999, "2026-01-31T09:05:00.999Z"),
        (0.0, FIRST),
        (253402300799.0, LAST),
        (253402300799.9, LAST),
        (parse_rfc3339("9999-12-31T23:59:59.9999999Z"), LAST),
        (parse_rfc3339("9999-12-31T23:59:59-23:59"), LAST),
        (1e18, LAST),
        (1e300, LAST),
        (math.inf, LAST),
        (-5.0, FIRST),
        (-math.inf, FIRST),
        (math.nan, FIRST),
    ],
)
def test_every_number_is_some_time(at: float, text: str) -> None:
    assert format_rfc3339(at) == text
