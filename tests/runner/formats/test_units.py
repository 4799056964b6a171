from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from runner.bounds import SECONDS_MAX
from runner.formats import units
from runner.jobs.retry import Backoff


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (5, 5.0),
        (0.25, 0.25),
        ("500ms", 0.5),
        ("30s", 30.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1.5 h", 5400.0),
        ("7", 7.0),
    ],
)
def test_durations_are_read(text: float | str, expected: float) -> None:
    assert units.parse_seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "bad",
    ["", "s", "5x", "-1s", "1e9s", "NaN", -1, math.nan, math.inf, True, None, [], "5 m 3", "9" * 400 + "s"],
)
def test_what_is_no_duration_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="duration"):
        units.parse_seconds(bad)


@pytest.mark.parametrize("bad", ["3661d", "9" * 60 + "ms", SECONDS_MAX + 1, 1e308, 10**400])
def test_no_duration_is_longer_than_ten_years(bad: float | str) -> None:
    assert units.parse_seconds("3660d") == SECONDS_MAX
    with pytest.raises(ValueError, match="at most ten years"):
        units.parse_seconds(bad)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (0, 0),
        (7, 7),
        ("512MiB", 512 << 20),
        ("6GiB", 6 << 30),
        ("1.5GiB", 3 << 29),
        ("1GB", 10**9),
        ("12", 12),
        ("2 kib", 2048),
    ],
)
def test_sizes_are_read(text: int | str, expected: int) -> None:
    assert units.parse_bytes(text) == expected


@pytest.mark.parametrize(
    "bad",
    [
        "", "GiB", "5 parsecs", -1, 1.5, True, None, "-1MiB", "0x10",
        "9" * 400 + ".5", "9" * 5000, 2**62 + 1, "4.1e18", "4194305TiB", 10**400,
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="size"):
        units.parse_bytes(bad)


def test_an_error_quotes_the_beginning_of_a_long_value() -> None:
    parsers: list[Callable[[Any], object]] = [units.parse_bytes, units.parse_seconds, units.parse_backoff]
    for parse in parsers:
        for long in ("x" * 1_000_000, ["x"] * 100_000, 10**5000):
            with pytest.raises(ValueError) as refused:
                parse(long)
            assert len(str(refused.value)) < 300


def test_a_backoff_has_as_many_delays_as_there_are_retries_at_most() -> None:
    assert len(units.parse_backoff([1] * 1000).steps_s) == 1000
    with pytest.raises(ValueError, match="at most 1000 delays"):
        units.parse_backoff([1] * 1001)


def test_large_sizes_stay_exact() -> None:
    assert units.parse_bytes("9007199254740993") == 2**53 + 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, Backoff("fixed", 3.0, 600.0, 0.0)),
        ("2h", Backoff("fixed", 7200.0, 7200.0, 0.0)),
        ([1, "5s"], Backoff("list", 1.0, 600.0, 0.0, (1.0, 5.0))),
        ({"kind": "linear", "base_s": 2, "jitter": 0}, Backoff("linear", 2.0, 600.0, 0.0)),
        ({}, Backoff()),
    ],
)
def test_backoffs_are_read(value: object, expected: Backoff) -> None:
    assert units.parse_backoff(value) == expected


@pytest.mark.parametrize(
    "bad", [[], {"kind": "cubic"}, {"base": 1}, {"jitter": 2}, None, -1, [-1], {"max_s": "x"}]
)
def test_what_is_no_backoff_is_refused(bad: object) -> None:
    with pytest.raises(ValueError):
        units.parse_backoff(bad)


@pytest.mark.parametrize(
    "bad",
    [
        1e18,
        "3661d",
        [1, 1e18],
        {"base_s": 1e18},
        {"max_s": "4000d"},
        {"kind": "linear", "base_s": 1, "max_s": 10**30},
        Backoff(base_s=1e18),
        Backoff(max_s=1e18),
        Backoff("list", steps_s=(1.0, 1e18)),
    ],
)
def test_no_wait_of_a_backoff_is_longer_than_ten_years(bad: object) -> None:
    with pytest.raises(ValueError, match="at most ten years"):
        units.parse_backoff(bad)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (5 << 20, "5 MiB"),
        (24 << 30, "24 GiB"),
        (200 << 30, "200 GiB"),
        (3 << 40, "3 TiB"),
        (-(2 << 30), "-2 GiB"),
    ],
)
def test_sizes_are_shown_in_the_largest_unit(count: int, text: str) -> None:
    assert units.format_bytes(count) == text
