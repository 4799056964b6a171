"""Effect: what a return annotation says about a handler's output: the types, the serializer, the JSON Schema.

Importing pydantic takes longer than most executors need to start, so annotations of plain types do without.
"""

from __future__ import annotations

import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from types import UnionType
from typing import Any, NamedTuple

import msgspec

from runner.formats import foreign_types
from runner.handlers import annotations as handler_annotations

#: JSON Schema of a file reference, as `ctx.save_file` returns it.
FILE_REFERENCE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "$file": {"type": "string"},
        "id": {"type": "string"},
        "name": {"type": "string"},
        "size": {"type": "integer"},
        "sha256": {"type": "string"},
        "content_type": {"type": "string"},
        "url": {"type": "string"},
    },
    "required": ["$file", "id", "name", "size", "sha256", "content_type", "url"],
}
_CONTAINERS = (list, tuple, set, frozenset, dict, Sequence, Mapping, typing.Union, UnionType)
_SYNC_STREAMS = (Generator, Iterator, Iterable)
_ASYNC_STREAMS = (AsyncGenerator, AsyncIterator, AsyncIterable)


class OutputTypes(NamedTuple):
    """The annotations of what one job's call returns and yields; Any where nothing is said."""

    #: What the function returns; of a generator, its return value.
    returned: Any
    #: What a generator yields.
    yielded: Any = Any
    #: The function returns a generator, so its output may be the list of what was yielded.
    is_stream: bool = False


def read_output_types(function: Callable[..., Any], *, is_batched: bool, is_generator: bool) -> OutputTypes:
    """Return the types of one job's output.

    Args:
        is_batched: the annotation is that of a list with one outcome for each job.
        is_generator: the function is a generator function, synchronous or not.

    Raises:
        TypeError: the annotation does not name a type, or not a list for a batch.
    """
    given = handler_annotations.output_annotation(function)
    if typing.get_origin(given) in (Coroutine, Awaitable):
        given = typing.get_args(given)[-1]
    if is_batched:
        return OutputTypes(handler_annotations.output_item_annotation(given))
    stream = typing.get_origin(given) or given
    parts = typing.get_args(given)
    if stream in _ASYNC_STREAMS:
        return OutputTypes(None, parts[0] if parts else Any, is_stream=True)
    if stream in _SYNC_STREAMS and (is_generator or stream is not Iterable):
        returned = parts[2] if len(parts) == 3 else None if parts else Any
        return OutputTypes(returned, parts[0] if parts else Any, is_stream=True)
    if is_generator:
        return OutputTypes(Any, is_stream=True)
    return OutputTypes(Any if handler_annotations.is_anything(given) else given)


def needs_no_serializer(annotation: Any) -> bool:
    """Return whether values of the annotation are serialised alike without it.

    True for JSON types, types that `strict_json` knows, files, and containers of them.
    """
    if handler_annotations.is_anything(annotation) or annotation in (None, type(None)):
        return True
    if handler_annotations.find_plain(annotation) is not None:
        return True
    origin = typing.get_origin(annotation)
    if origin in (typing.Literal, typing.NoReturn, typing.Never):
        return True
    if origin in _CONTAINERS:
        return all(part is Ellipsis or needs_no_serializer(part) for part in typing.get_args(annotation))
    if not isinstance(annotation, type):
        return annotation in (typing.NoReturn, typing.Never)
    return annotation in (tuple, set, frozenset) or is_file_or_atom(annotation)


def is_file_or_atom(kind: type) -> bool:
    """Return whether the type is saved as a file, or serialised as one JSON value."""
    return foreign_types.is_file_type(kind) or foreign_types.is_atom_type(kind)


def make_serializer(annotation: Any) -> Any:
    """Return pydantic's serializer for the annotation; None if values are serialised alike without it.

    Raises:
        TypeError: the annotation has no serializer.
    """
    adapter = None if needs_no_serializer(annotation) else _make_adapter(annotation)
    return None if adapter is None else adapter.serializer


def output_schema(types: OutputTypes) -> bytes:
    """Return the JSON Schema of a job's output as JSON text: `true` if nothing is known.

    Images, figures, paths and bytes are file references, as they are saved with the job.

    Raises:
        TypeError: values of the annotation can't be serialised.
    """
    returned = _schema(types.returned)
    if types.is_stream:
        yielded = _schema(types.yielded)
        if types.returned is Any:
            return b"true"
        listed: dict[str, Any] = {"type": "array"}
        if yielded is not True:
            listed["items"] = yielded
            _lift_definitions(listed, yielded)
        if types.returned in (None, type(None)):
            return msgspec.json.encode(listed)
        both: dict[str, Any] = {"anyOf": [returned, listed]}
        _lift_definitions(both, listed)
        _lift_definitions(both, returned)
        return msgspec.json.encode(both)
    return msgspec.json.encode(returned)


def _lift_definitions(outer: dict[str, Any], inner: Any) -> None:
    """Move `$defs` of a schema to the root, where its references point."""
    if isinstance(inner, dict) and "$defs" in inner:
        outer["$defs"] = {**outer.get("$defs", {}), **inner.pop("$defs")}


def _schema(annotation: Any) -> Any:
    if handler_annotations.is_anything(annotation):
        return True
    plain = handler_annotations.find_plain(annotation)
    if plain is not None:
        return msgspec.json.decode(plain.schema)
    if annotation in (typing.NoReturn, typing.Never):
        return True
    from pydantic.errors import PydanticUserError
    from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

    class OutputSchema(GenerateJsonSchema):
        def bytes_schema(self, schema: Any) -> JsonSchemaValue:
            return dict(FILE_REFERENCE_SCHEMA)

        def is_instance_schema(self, schema: Any) -> JsonSchemaValue:
            kind = schema["cls"]
            if isinstance(kind, type) and foreign_types.is_file_type(kind):
                return dict(FILE_REFERENCE_SCHEMA)
            hint = foreign_types.hint_instead_of(kind) if isinstance(kind, type) else ""
            raise TypeError(f"values of {kind!r} are not JSON; {hint}")

    adapter = _make_adapter(annotation)
    if adapter is None:
        return True
    try:
        found = adapter.json_schema(mode="serialization", by_alias=False, schema_generator=OutputSchema)
    except PydanticUserError as error:
        raise TypeError(
            f"the annotation of the output, {annotation!r}, has no JSON Schema; "
            f"use a pydantic model, a plain type or no annotation ({error.message})"
        ) from None
    return _with_file_references(found)


def _with_file_references(schema: Any) -> Any:
    """Return the schema with references in place of paths, which pydantic describes as text."""
    if isinstance(schema, dict):
        if schema.get("type") == "string" and schema.get("format") in ("path", "file-path"):
            kept = {key: schema[key] for key in ("title", "description", "default") if key in schema}
            return {**FILE_REFERENCE_SCHEMA, **kept}
        return {key: _with_file_references(part) for key, part in schema.items()}
    if isinstance(schema, list):
        return [_with_file_references(part) for part in schema]
    return schema


def _make_adapter(annotation: Any) -> Any:
    """Return a TypeAdapter that takes classes pydantic does not know; a model's own configuration counts.

    None for `typing.TypedDict` before Python 3.12, which pydantic can't read; it is a dict in any case.

    Raises:
        TypeError: pydantic has no schema for the annotation.
    """
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        try:
            return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":
                raise
            return TypeAdapter(annotation)
    except PydanticUserError as error:
        if error.code == "typed-dict-version":
            return None
        raise TypeError(f"the annotation of the output, {annotation!r}, is not supported: {error}") from None
