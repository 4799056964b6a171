"""Pure: JSON bodies are strict."""

from __future__ import annotations

import time

import pytest

from api.http.body import check_json, parse_json
from api.validation.json_text import CheckedJson, deeper_than
from runner.errors import ValidationFailed


@pytest.mark.parametrize(
    ("text", "pointer", "word"),
    [
        (b"", "", "JSON"),
        (b"{", "", "JSON"),
        (b"NaN", "", "JSON"),
        (b'{"a": Infinity}', "", "JSON"),
        (b"1e999", "", "JSON"),
        (b"1" * 5000, "", "JSON"),
        (b'"\xff"', "", "UTF-8"),
        (rb'"\ud800"', "", "JSON"),
        (rb'{"\udc00": 1}', "", "JSON"),
        (b'{"a": [1, {"b/c": 1180591620717411303424}]}', "/a/1/b~1c", "64 bits"),
        (b"[-9223372036854775809]", "/0", "64 bits"),
        (b"[" * 100_000, "", "deeper"),
        (b"[" * 65 + b"]" * 65, "", "deeper"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "", "deeper"),
        (b"\xef\xbb\xbf{}", "", "JSON"),
        (b'"a\nb"', "", "JSON"),
    ],
)
def test_text_that_is_not_strict_json_is_refused_with_a_pointer(text: bytes, pointer: str, word: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        parse_json(text, 64)
    (fault,) = refused.value.detail["errors"]
    assert fault["pointer"] == pointer
    assert word in fault["message"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"[" * 64 + b"]" * 64, None),
        (b"18446744073709551615", 2**64 - 1),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (rb'"\ud83d\ude00"', "\N{GRINNING FACE}"),
        (b'["' + b"[" * 100 + b'"]', ["[" * 100]),
        (b'{"id": "12345678901234567890123"}', {"id": "12345678901234567890123"}),
    ],
)
def test_what_is_within_bounds_is_taken(text: bytes, value: object) -> None:
    found = check_json(text, 64)
    assert isinstance(found, CheckedJson)
    if value is not None:
        assert found.value == value


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        (b"1", 0),
        (b"[]", 1),
        (b"[[],[[]]]", 3),
        (b'{"a":[{"b":{}}]}', 4),
        (rb'["\"[", "\\", [1]]', 2),
        (rb'["\\\"]]", ["{"]]', 2),
    ],
)
def test_depth_is_told_exactly(text: bytes, depth: int) -> None:
    assert not deeper_than(text, depth)
    assert depth == 0 or deeper_than(text, depth - 1)


@pytest.mark.timed
def test_depth_of_a_wide_text_is_told_quickly() -> None:
    text = b"[" + b",".join([b'{"a":[1,2]}'] * 200_000) + b"]"
    started = time.perf_counter()
    assert not deeper_than(text, 64)
    assert time.perf_counter() - started < 0.5
