"""Pure: what `runner handlers show` prints of a handler."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel, Field

from runner.cli.handler_page import example_arguments, input_fields, inputs
from tests.runner.cli.test_tables import drawn


class Style(Enum):
    OIL = "oil"
    INK = "ink"


class Layer(BaseModel):
    name: str


class Prompt(BaseModel):
    steps: int = Field(20, ge=1, le=200, description="Number of denoising steps")
    text: str = Field(min_length=1)
    style: Style
    seed: int | None = None
    layers: list[Layer] = []
    size: Literal["s", "m"] = "s"
    strength: float = Field(ge=0.5, examples=[0.75])


SCHEMA: dict[str, Any] = Prompt.model_json_schema()
DOCUMENT: dict[str, Any] = {"name": "paint", "state": "ok", "input_schema": SCHEMA}


def test_required_inputs_come_first_with_their_types_and_bounds() -> None:
    fields = {field.name: field for field in input_fields(SCHEMA)}
    assert [*fields] == ["text", "style", "strength", "steps", "seed", "layers", "size"]
    assert [field.type for field in fields.values()] == [
        "string",
        '"oil" | "ink"',
        "number",
        "integer",
        "integer or null",
        "list of object",
        '"s" | "m"',
    ]
    assert fields["steps"].default == "20" and fields["seed"].default == "null"
    assert fields["steps"].about == "Number of denoising steps; >= 1; <= 200"


def test_the_table_fits_80_columns() -> None:
    lines = drawn(inputs(input_fields(SCHEMA)))
    assert lines[0].split() == ["INPUT", "TYPE", "DEFAULT", "ABOUT"]
    assert "required" in lines[1] and max(map(len, lines)) <= 80


def test_the_example_command_gives_every_required_input() -> None:
    assert example_arguments(DOCUMENT) == "run paint text=TEXT style=oil strength:=0.75"


def test_a_handler_without_a_schema_of_fields_is_run_without_any() -> None:
    assert input_fields({"type": "array"}) == [] and input_fields({}) == []
    assert example_arguments({"name": "echo", "input_schema": {}}) == "run echo"


def test_values_of_a_schema_cannot_break_the_command_line() -> None:
    schema = {"properties": {"a": {"const": "x; rm -rf\n\x1b[2J"}}, "required": ["a"]}
    text = example_arguments({"name": "echo", "input_schema": schema})
    assert text.startswith("run echo 'a=x; rm -rf") and "\x1b" not in text and "\n" not in text
