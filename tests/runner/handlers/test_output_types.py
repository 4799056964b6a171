"""Pure: the JSON Schema of an output and the need for a serializer, for each form of return annotation."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import typing
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
import PIL.Image
import pytest
import typing_extensions
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from runner.handlers import output_types
from runner.handlers.output_types import FILE_REFERENCE_SCHEMA

INTEGER = {"type": "integer"}


class Colour(enum.Enum):
    RED = "red"


class Page(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    image: PIL.Image.Image
    raw: bytes
    path: Path = Field(description="where it is")


class Tensors(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    values: np.ndarray


class Typed(typing_extensions.TypedDict):
    a: int


class OldTyped(typing.TypedDict):
    a: int


class Tagged(BaseModel):
    tag: str


@dataclasses.dataclass
class Box:
    a: int


def schema_of(annotation: Any, *, is_generator: bool = False, is_batched: bool = False) -> Any:
    def function(data: Any) -> None: ...

    function.__annotations__["return"] = annotation
    types = output_types.read_output_types(function, is_batched=is_batched, is_generator=is_generator)
    return json.loads(output_types.output_schema(types))


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (Any, True),
        (int, INTEGER),
        (None, {"type": "null"}),
        (NoReturn, True),
        (list[int], {"type": "array", "items": INTEGER}),
        (datetime.date, {"type": "string", "format": "date"}),
        (Awaitable[int], INTEGER),
        (bytes, FILE_REFERENCE_SCHEMA),
        (Path, FILE_REFERENCE_SCHEMA),
        (PIL.Image.Image, FILE_REFERENCE_SCHEMA),
        (Figure, FILE_REFERENCE_SCHEMA),
        (dict[str, bytes], {"type": "object", "additionalProperties": FILE_REFERENCE_SCHEMA}),
        (
            list[PIL.Image.Image] | None,
            {"anyOf": [{"type": "array", "items": FILE_REFERENCE_SCHEMA}, {"type": "null"}]},
        ),
        (Annotated[bytes, PlainSerializer(bytes.hex, return_type=str)], {"type": "string"}),
    ],
)
def test_the_schema_follows_the_annotation(annotation: Any, schema: Any) -> None:
    assert schema_of(annotation) == schema


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (Iterator[int], {"type": "array", "items": INTEGER}),
        (Iterable[str], {"type": "array", "items": {"type": "string"}}),
        (AsyncIterator[bytes], {"type": "array", "items": FILE_REFERENCE_SCHEMA}),
        (Generator[int, None, None], {"type": "array", "items": INTEGER}),
        (Generator[int], {"type": "array", "items": INTEGER}),
        (Generator[int, None, str], {"anyOf": [{"type": "string"}, {"type": "array", "items": INTEGER}]}),
        (Any, True),
        (list[int], True),
    ],
)
def test_the_output_of_a_generator_is_a_list(annotation: Any, schema: Any) -> None:
    assert schema_of(annotation, is_generator=True) == schema


def test_definitions_of_chunks_stay_at_the_root() -> None:
    found = schema_of(Generator[list[Box], None, dict[str, Tagged]], is_generator=True)
    assert set(found["$defs"]) == {"Box", "Tagged"}
    assert found["anyOf"][0]["additionalProperties"] == {"$ref": "#/$defs/Tagged"}
    assert found["anyOf"][1]["items"]["items"] == {"$ref": "#/$defs/Box"}


def test_a_typed_dict_of_an_older_python_stays_a_dict() -> None:
    assert schema_of(OldTyped) in (True, schema_of(Typed) | {"title": "OldTyped"})


def test_fields_that_are_files_are_references_in_the_schema() -> None:
    fields = schema_of(Page)["properties"]
    assert fields["image"]["properties"] == FILE_REFERENCE_SCHEMA["properties"]
    assert fields["raw"]["properties"] == FILE_REFERENCE_SCHEMA["properties"]
    assert fields["path"]["properties"] == FILE_REFERENCE_SCHEMA["properties"]
    assert fields["path"]["description"] == "where it is"


@pytest.mark.parametrize(
    ("annotation", "hint"),
    [
        (np.ndarray, "return a list: array.tolist()"),
        (dict[str, np.ndarray], "return a list: array.tolist()"),
        (Tensors, "return a list: array.tolist()"),
        (Callable[[], int], "has no JSON Schema"),
        (type("Opaque", (), {}), "return JSON values"),
    ],
)
def test_an_annotation_that_can_not_be_serialised_is_refused(annotation: Any, hint: str) -> None:
    with pytest.raises(TypeError) as caught:
        schema_of(annotation)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "is_plain"),
    [
        (Any, True),
        (list[dict[str, int | None]], True),
        (tuple[int, ...], True),
        (Literal["a"], True),
        (set[Colour], True),
        (uuid.UUID, True),
        (list[PIL.Image.Image], True),
        (NoReturn, True),
        (Page, False),
        (list[Box], False),
        (Typed, False),
        (Annotated[int, PlainSerializer(str)], False),
    ],
)
def test_only_annotations_that_change_the_result_need_a_serializer(annotation: Any, is_plain: bool) -> None:
    assert output_types.needs_no_serializer(annotation) is is_plain
    assert (output_types.make_serializer(annotation) is None) is is_plain
