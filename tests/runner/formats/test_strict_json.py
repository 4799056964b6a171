from __future__ import annotations

import enum
import json
from collections import OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, Field

from runner.formats import strict_json
from runner.formats.strict_json import NotSerialisable


class Inner(BaseModel):
    when: datetime
    size: int = Field(serialization_alias="theSize")


class Number(enum.IntEnum):
    ONE = 1


class Colour(str, enum.Enum):  # noqa: UP042
    RED = "red"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**64 - 1,
        1.5,
        "ü",
        "",
        [],
        {},
        [1, "a", None],
        {"a": {"b": [1.5, True]}},
        [[1], [2]],
    ],
)
def test_json_values_survive(value: Any) -> None:
    assert json.loads(strict_json.encode(value)) == value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (float("nan"), "not a JSON number"),
        ([1.0, float("inf")], "not a JSON number at /1"),
        ({"a": {"b/c": float("-inf")}}, "at /a/b~1c"),
        (2**64, "beyond 64 bits"),
        ([1, 2**70], "beyond 64 bits at /1"),
        (-(2**63) - 1, "beyond 64 bits"),
        ("\ud800", "lone surrogate"),
        ({"\udfff": 1}, "lone surrogate"),
        (object(), "object of type builtins.object"),
        ({1, float("nan")}, "not a JSON number"),
        (b"bytes", "builtins.bytes can't be a JSON value; save it by ctx.save_file"),
        ({None: 1}, "keys must be strings"),
        ({(1, 2): 1}, "keys must be strings"),
        (1j, "complex"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(value: Any, why: str) -> None:
    with pytest.raises(NotSerialisable) as caught:
        strict_json.encode(value)
    assert why in str(caught.value)


def test_a_circle_is_refused() -> None:
    circle: list[Any] = []
    circle.append([circle])
    with pytest.raises(NotSerialisable, match="deeper"):
        strict_json.encode(circle)


def test_models_are_dumped_anywhere_by_their_own_names() -> None:
    value = {"list": [Inner(when=datetime(2026, 1, 2, tzinfo=UTC), size=3)]}
    assert json.loads(strict_json.encode(value)) == {"list": [{"when": "2026-01-02T00:00:00Z", "size": 3}]}


def test_nan_inside_a_model_is_refused() -> None:
    class Loose(BaseModel):
        x: float

    with pytest.raises(NotSerialisable):
        strict_json.encode(Loose(x=float("nan")))


def test_subclasses_of_json_types_become_plain() -> None:
    value = OrderedDict(a=Colour.RED, b=Number.ONE, c=(1, 2))
    assert json.loads(strict_json.encode(value)) == {"a": "red", "b": 1, "c": [1, 2]}


def test_dates_decimals_and_sets_become_what_pydantic_makes_of_them() -> None:
    value = {"at": datetime(2026, 1, 1, tzinfo=UTC), "cost": Decimal("1.50"), "ids": {1}, Colour.RED: (1,)}
    expected = {"at": "2026-01-01T00:00:00Z", "cost": "1.50", "ids": [1], "red": [1]}
    assert json.loads(strict_json.encode(value)) == expected


def test_files_are_saved_wherever_they_are() -> None:
    class Page(BaseModel):
        raw: bytes
        when: datetime

    saved: list[Any] = []

    def save(value: Any) -> dict[str, Any]:
        saved.append(value)
        return {"$file": str(len(saved))}

    value = [b"a", {"page": Page(raw=b"\xff", when=datetime(2026, 1, 1, tzinfo=UTC))}]
    assert json.loads(strict_json.encode(value, save)) == [
        {"$file": "1"},
        {"page": {"raw": {"$file": "2"}, "when": "2026-01-01T00:00:00Z"}},
    ]
    assert saved == [b"a", b"\xff"]


def test_integer_keys_become_text() -> None:
    assert json.loads(strict_json.encode({0: "a", "x": 1, 2: {3: 4}})) == {"0": "a", "x": 1, "2": {"3": 4}}


def test_the_given_value_is_left_as_it_was() -> None:
    value: dict[Any, Any] = {"a": (1, Colour.RED), 3: 1}
    strict_json.encode(value)
    assert value == {"a": (1, Colour.RED), 3: 1}
