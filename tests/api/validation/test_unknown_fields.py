"""Fields of an input that its handler ignores are named."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from api.validation.unknown_fields import WARNINGS_MAX, UnknownFields


class Style(BaseModel):
    name: str = ""


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = ""


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str = ""


class Paint(BaseModel):
    text: str
    steps: int = 20
    style: Style | None = None
    layers: list[Style] = []
    closed: Closed = Closed()
    open: Open = Open()
    counts: dict[str, int] = {}
    either: Style | Open | int = 0
    parts: list[Paint] = []


FIELDS = UnknownFields(Paint.model_json_schema())
IGNORED = "is not a field of the handler's input and is ignored"


@pytest.mark.parametrize(
    ("value", "warnings"),
    [
        ({"text": "a"}, []),
        ({"text": "a", "stepz": 3}, [f"input.stepz {IGNORED}; did you mean 'steps'?"]),
        ({"text": "a", "zzz": 3}, [f"input.zzz {IGNORED}"]),
        ({"style": {"nam": 1}}, [f"input.style.nam {IGNORED}; did you mean 'name'?"]),
        ({"style": None}, []),
        ({"layers": [{"name": "x"}, {"q": 1}]}, [f"input.layers.1.q {IGNORED}"]),
        ({"parts": [{"parts": [{"q": 1}]}]}, [f"input.parts.0.parts.0.q {IGNORED}"]),
        # What takes any field, or none, by itself.
        ({"closed": {}, "open": {"q": 1}, "counts": {"q": 1}, "either": {"q": 1}}, []),
    ],
)
def test_fields_that_a_model_ignores_are_named(value: Any, warnings: list[str]) -> None:
    assert FIELDS.find(value) == warnings


@pytest.mark.parametrize("schema", [True, {}, {"type": "object"}, {"items": {"type": "object"}}])
def test_a_schema_without_fields_ignores_none(schema: Any) -> None:
    assert UnknownFields(schema).find([{"q": 1}]) == [] == UnknownFields(schema).find({"q": 1})


def test_a_reference_that_leads_nowhere_or_in_a_circle_is_left_out() -> None:
    schema = {"$defs": {"A": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"}
    assert UnknownFields(schema).find({"q": 1}) == []
    assert UnknownFields({"$defs": {}, "$ref": "#/$defs/A"}).find({"q": 1}) == []


def test_warnings_are_bounded() -> None:
    found = FIELDS.find({"x" * 10_000 + str(n): n for n in range(1000)})
    assert len(found) == WARNINGS_MAX and max(map(len, found)) < 300
    assert len(FIELDS.find({"layers": [{"q": 1}] * 100_000})) == WARNINGS_MAX
