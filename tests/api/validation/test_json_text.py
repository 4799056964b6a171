"""Strict JSON, checked without a walk of the value in Python."""

from __future__ import annotations

import time

import pytest

from api.validation.json_text import CheckedJson, check_json_text
from runner.bounds import INT_MAX, INT_MIN


@pytest.mark.parametrize(
    "text",
    [
        str(INT_MAX),
        str(INT_MIN),
        f'["{2**70}", {INT_MAX}]',
        f'{{"{2**70}": "\\"{2**70}"}}',
        "1234567890123456789.5",
        "0.1234567890123456789012345",
        "1e-1234567890123456789",
        "[1.5E+00000000000000000000001]",
    ],
)
def test_numbers_within_64_bits_and_floats_are_accepted(text: str) -> None:
    assert isinstance(check_json_text(text.encode(), 64), CheckedJson)


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        (str(INT_MAX + 1), ""),
        (f"[1, {INT_MIN - 1}]", "/1"),
        (f'{{"a/b": [[{2**70}]]}}', "/a~1b/0/0"),
        (f'{{"a":{"9" * 400}}}', "/a"),
    ],
)
def test_an_integer_beyond_64_bits_is_refused(text: str, pointer: str) -> None:
    assert check_json_text(text.encode(), 64) == [(pointer, "is an integer beyond 64 bits")]


def test_a_long_number_among_many_costs_little() -> None:
    numbers = b"[" + b"1," * 1_000_000
    took_s: dict[bytes, float] = {}
    for last in (b"1]", b"1234567890123456789]"):
        times: list[float] = []
        for _ in range(3):
            began_s = time.process_time()
            assert isinstance(check_json_text(numbers + last, 64), CheckedJson)
            times.append(time.process_time() - began_s)
        took_s[last] = min(times)
    plain_s, long_s = took_s.values()
    assert long_s < 5 * plain_s
