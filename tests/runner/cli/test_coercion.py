"""Pure: the text of `key=text` as the schema of the input wants it."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel

from runner.cli.coercion import coerce, may_be_coerced


class Model(BaseModel):
    size: int
    name: str


class Prompt(BaseModel):
    times: int
    strength: float
    sharp: bool
    text: str
    maybe: int | None = None
    either: int | str = 0
    level: Literal[1, 2] = 1
    switch: bool | int = False
    word: Literal["1", "2"] = "1"
    ids: list[int] = []
    anything: Any = None
    model: Model
    optional: Model | None = None
    more: dict[str, float] = {}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("times", "5", 5),
        ("times", "-5", -5),
        ("times", "5.5", "5.5"),
        ("times", "five", "five"),
        ("strength", "0.5", 0.5),
        ("strength", "2", 2),
        ("strength", "1e3", 1000.0),
        ("strength", "nan", "nan"),
        ("sharp", "true", True),
        ("sharp", "false", False),
        ("sharp", "1", "1"),
        ("text", "5", "5"),
        ("maybe", "5", 5),
        ("either", "5", "5"),
        ("level", "2", 2),
        ("switch", "true", True),
        ("switch", "3", 3),
        ("word", "1", "1"),
        ("ids", "5", "5"),
        ("anything", "5", "5"),
        ("unknown", "5", "5"),
        ("model.size", "7", 7),
        ("model.name", "7", "7"),
        ("optional.size", "7", 7),
        ("more.x", "0.5", 0.5),
        ("times.x", "5", "5"),
    ],
)
def test_text_becomes_what_the_schema_allows_alone(key: str, text: str, value: Any) -> None:
    found = coerce(text, key.split("."), Prompt.model_json_schema())
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "schema", [True, {}, None, {"type": "object"}, {"$ref": "#/$defs/none"}, {"$ref": "#"}]
)
def test_a_schema_that_says_nothing_keeps_text(schema: Any) -> None:
    assert coerce("5", ["times"], schema) == "5"


def test_only_text_like_a_number_or_boolean_needs_the_schema() -> None:
    assert all(map(may_be_coerced, ("5", "-1", ".5", "+2", "true", "1e3")))
    assert not any(map(may_be_coerced, ("", "hello", "True", "e5")))
