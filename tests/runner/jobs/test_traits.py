"""What an input and a timeout say of a job."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from runner.jobs.traits import (
    FOREVER_S,
    NEUTRAL,
    InputTraits,
    JobTraits,
    TraitError,
    TraitReader,
    decode_traits,
    encode_traits,
)

NAMES = st.text(max_size=8)


@given(NAMES, NAMES, NAMES, NAMES, st.none() | st.floats(1e-3, 1e12))
def test_a_text_tells_the_traits_again(
    tenant: str, model: str, size: str, group: str, timeout_s: float | None
) -> None:
    text = encode_traits(tenant, model, size, group, timeout_s)
    found = decode_traits(text)
    assert found[:4] == (tenant, model, size, group)
    if timeout_s is None or timeout_s >= FOREVER_S:
        assert math.isinf(found.limit_s)
    else:
        assert found.limit_s / math.sqrt(2) < timeout_s * (1 + 1e-12) and timeout_s <= found.limit_s


@pytest.mark.parametrize("steps", range(-20, 60))
def test_a_power_of_the_root_of_two_is_its_own_limit(steps: int) -> None:
    limit_s = 2.0 ** (steps / 2)
    assert decode_traits(encode_traits("", "", "", "", limit_s)).limit_s == limit_s


def test_texts_are_short_where_nothing_is_said() -> None:
    assert encode_traits("", "", "", "", 600.0) == "[19]" and encode_traits("", "", "", "", None) == NEUTRAL
    assert decode_traits(NEUTRAL) == JobTraits()


@pytest.mark.parametrize(
    ("value", "model"),
    [
        ({"m": "sdxl"}, "sdxl"),
        ({"m": 5}, "5"),
        ({"m": 1.5}, "1.5"),
        ({"m": True}, "true"),
        ({"m": None}, ""),
        ({}, ""),
        ([1], ""),
        (None, ""),
    ],
)
def test_a_scalar_names_a_model(value: Any, model: str) -> None:
    assert TraitReader("m").read(value) == InputTraits(model, "", "")


@pytest.mark.parametrize("named", [["a"], {"a": 1}, "x" * 201, "a\nb"])
def test_what_names_no_model_is_told_with_its_place(named: Any) -> None:
    found = TraitReader("a/b.m").read({"a/b": {"m": named}})
    assert isinstance(found, TraitError) and found.pointer == "/a~1b/m"


def test_a_group_is_named_as_a_model_is() -> None:
    reading = TraitReader("m", (), ("g",))
    assert reading.read({"m": "a", "g": 3}) == InputTraits("a", "", "3")
    found = reading.read({"m": "a", "g": []})
    assert isinstance(found, TraitError) and found.pointer == "/g"


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, "0"),
        (0.0, "0"),
        (1, "1"),
        (3, "4"),
        (4, "4"),
        (5.5, "8"),
        (0.3, "0.5"),
        (-3, "-4"),
        (1 << 40, "1099511627776"),
        ((1 << 40) + 1, "2199023255552"),
        (True, "true"),
        (False, "false"),
        (None, ""),
        ("fp16", "fp16"),
        ("a\tb", "a b"),
        ("x" * 41, "64"),
        ([1, 2, 3], "4"),
        ([], "0"),
        ({"a": 1}, "1"),
    ],
)
def test_values_of_a_size_are_few(value: Any, size: str) -> None:
    assert TraitReader(size_by=("n", "w")).read({"n": value, "w": 7}) == InputTraits("", f"{size},8", "")


@given(st.floats(1e-6, 1e15))
def test_a_size_is_rounded_up_to_a_power_of_two(value: float) -> None:
    rounded = float(TraitReader(size_by=("n",)).read({"n": value})[1])
    assert value <= rounded < 2 * value and math.frexp(rounded)[0] == 0.5


class Checkpoint(BaseModel):
    name: str = "small"


class Paint(BaseModel):
    checkpoint: Checkpoint = Checkpoint()
    width: int = 500
    height: int


def test_a_field_that_is_left_out_counts_as_its_default() -> None:
    reading = TraitReader("checkpoint.name", ("width", "height"), schema=Paint.model_json_schema())
    assert reading.read({"height": 3}) == InputTraits("small", "512,4", "")
    assert reading.read({"height": 3, "checkpoint": {"name": "large"}, "width": 64}) == InputTraits(
        "large", "64,4", ""
    )
    assert reading.read({"height": 3, "checkpoint": "large"}) == InputTraits("small", "512,4", "")


def test_a_group_may_be_named_by_several_fields() -> None:
    reading = TraitReader(group_by=("a", "b"))
    assert reading.read({"a": "x", "b": 1}) == InputTraits("", "", "x\x1f1")
    assert reading.read({"a": "x\x1f1"}) == TraitError(
        "/a",
        "must be a number, true, false or a string of at most 200 characters without control characters",
    )
