"""Effect: inputs as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.cli.arguments import CommandUsageError, job_input, metadata


def _given(*words: str, stdin: str = "") -> Any:
    return job_input(words, lambda: stdin)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ((), {}),
        (("text=a cat",), {"text": "a cat"}),
        (("text=a=b",), {"text": "a=b"}),
        (("text=",), {"text": ""}),
        (("steps:=20", "on:=true", "none:=null"), {"steps": 20, "on": True, "none": None}),
        (('list:=[1, "two"]',), {"list": [1, "two"]}),
        (("model.name=tiny", "model.size:=7"), {"model": {"name": "tiny", "size": 7}}),
        (("n=1", "n=2"), {"n": "2"}),
    ],
)
def test_words_make_an_object(words: tuple[str, ...], value: Any) -> None:
    assert _given(*words) == value


def test_standard_input_is_the_whole_input_and_keys_change_it() -> None:
    assert _given("-", stdin="[1, 2]") == [1, 2]
    assert _given("-", "b=x", stdin='{"a": 1, "b": 2}') == {"a": 1, "b": "x"}


def test_a_file_is_the_whole_input(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps({"ä": 1}), "utf-8")
    assert _given(f"@{tmp_path}/in.json") == {"ä": 1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("text",), "expected key=text"),
        (("=x",), "expected key=text"),
        (("n:=twenty",), "n:=: not valid JSON"),
        (("n:=NaN",), "NaN is not valid JSON"),
        (("@/does/not/exist",), "cannot read /does/not/exist"),
        (("a=1", "-"), "only once"),
        (("-", "a=1"), "the input is not an object"),
        (("a=1", "a.b=2"), "not an object"),
    ],
)
def test_a_word_that_cannot_be_meant_is_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(CommandUsageError, match=said) as caught:
        _given(*words, stdin="[1]")
    assert caught.value.exit_code == 2


def test_metadata_is_an_object_or_nothing() -> None:
    assert metadata([]) is None
    assert metadata(["who=me"]) == {"who": "me"}
