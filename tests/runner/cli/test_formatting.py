"""Pure: figures for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.cli.common_options import print_json
from runner.cli.formatting import (
    NUMBERS_WIDTH,
    elapsed_s,
    format_age,
    format_duration,
    format_json,
    format_progress,
    format_size,
    one_line,
)

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def test_a_size_that_is_unknown_is_a_dash() -> None:
    assert (format_size(None), format_size(1536)) == ("-", "1.5 KiB")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0123, "12 ms"),
        (5, "5.0 s"),
        (59.96, "1 m 0 s"),
        (200, "3 m 20 s"),
        (3599.7, "1 h 0 m"),
        (7500, "2 h 5 m"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (None, "-"),
        ("2026-01-31T11:59:48.000Z", "12 s"),
        ("2026-01-31T09:00:00.000Z", "3 h"),
        ("2026-01-21T12:00:00.000Z", "10 d"),
        ("2026-01-31T12:05:00.000Z", "in 5 m"),
    ],
)
def test_ages(at: str | None, text: str) -> None:
    assert format_age(at, NOW) == text


def test_a_job_that_runs_is_measured_up_to_now() -> None:
    assert elapsed_s("2026-01-31T11:59:00.000Z", None, NOW) == 60
    assert elapsed_s("2026-01-31T11:59:00.000Z", "2026-01-31T11:59:01.500Z", NOW) == 1.5
    assert elapsed_s(None, None, NOW) is None


def test_text_on_one_line_is_cut_to_its_width() -> None:
    assert one_line("a\n  b\x1b", 0) == "a b\N{REPLACEMENT CHARACTER}"
    assert one_line("abcdef", 4) == "abc…"


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"done": 62, "total": 100, "fraction": 0.62}, "62%"),
        ({"done": 3, "total": 8, "fraction": 0.375, "message": "epoch 3"}, "38%  3/8  epoch 3"),
        ({"done": 3, "total": None, "fraction": None, "details": {"loss": 0.123456}}, "loss 0.1235"),
    ],
)
def test_progress_is_one_line(document: dict[str, object], text: str) -> None:
    assert format_progress(document) == text


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(VALUES)
def test_pretty_json_is_the_same_json(value: object) -> None:
    assert json.loads(format_json(value)) == value


def test_numbers_of_a_list_share_lines() -> None:
    vector = [n / 7 for n in range(200)]
    lines = format_json({"vectors": [vector], "names": ["a", "b"]}).splitlines()
    assert len(lines) < 60
    assert max(map(len, lines)) <= NUMBERS_WIDTH + 1
    assert format_json([1, 2.5, -3]) == "[1, 2.5, -3]"


def test_what_is_no_list_of_numbers_stands_as_usual() -> None:
    for value in ({"a": {}, "b": [], "c": [True, None]}, [{"x": "ä"}, ["y"]], "text", None):
        assert format_json(value) == json.dumps(value, ensure_ascii=False, indent=2)


@pytest.mark.parametrize("compact", [False, True])
def test_printed_json_escapes_what_a_terminal_interprets(
    compact: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    value = {"a\u202eb": ["\x9b2J", "\u2066", "é"]}
    print_json(value, compact=compact)
    text = capsys.readouterr().out
    assert json.loads(text) == value
    assert "\\u009b2J" in text and "\\u202e" in text and not {"\x9b", "\u202e", "\u2066"} & set(text)
