"""Pure: reads the annotations of a handler's input and output, without pydantic where possible.

Importing pydantic takes longer than most executors need to start, so plain types are checked without it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from types import SimpleNamespace, UnionType
from typing import Any, NamedTuple


class PlainType(NamedTuple):
    """An annotation that can be checked without pydantic."""

    #: Types that a JSON value may have; bool does not count as int.
    types: tuple[type, ...]
    #: JSON Schema of the values, as JSON text.
    schema: bytes
    #: The type's name in errors: "an object".
    label: str
    #: Conversion of a value before the handler gets it.
    convert: Callable[[Any], Any] | None = None


_ANYTHING: tuple[Any, ...] = (inspect.Parameter.empty, Any, object)
_PLAIN_TYPES: dict[Any, PlainType] = {
    dict: PlainType((dict,), b'{"type":"object"}', "an object"),
    dict[str, Any]: PlainType((dict,), b'{"type":"object"}', "an object"),
    dict[str, object]: PlainType((dict,), b'{"type":"object"}', "an object"),
    list: PlainType((list,), b'{"type":"array"}', "an array"),
    list[Any]: PlainType((list,), b'{"type":"array"}', "an array"),
    str: PlainType((str,), b'{"type":"string"}', "a string"),
    bool: PlainType((bool,), b'{"type":"boolean"}', "true or false"),
    int: PlainType((int,), b'{"type":"integer"}', "an integer"),
    float: PlainType((float, int), b'{"type":"number"}', "a number", float),
    None: PlainType((type(None),), b'{"type":"null"}', "null"),
    type(None): PlainType((type(None),), b'{"type":"null"}', "null"),
}


class UnresolvedAnnotation(TypeError):
    """An annotation refers to a name that does not exist."""


def is_anything(annotation: Any) -> bool:
    """Return whether the annotation accepts any JSON value."""
    return any(annotation is one for one in _ANYTHING)


def find_plain(annotation: Any) -> PlainType | None:
    """Return how to check the annotation without pydantic; None if that is not possible."""
    try:
        return _PLAIN_TYPES.get(annotation)
    except TypeError:
        # An annotation that can't be hashed, such as Annotated with a list in it.
        return None


def input_annotation(function: Callable[..., Any]) -> Any:
    """Return the annotation of the first parameter; `inspect.Parameter.empty` if there is none.

    Raises:
        UnresolvedAnnotation: it is text that does not name a type.
    """
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            break
        return _resolve(function, "input", parameter.annotation)
    return inspect.Parameter.empty


def output_annotation(function: Callable[..., Any]) -> Any:
    """Return the annotation of the return value.

    Raises:
        UnresolvedAnnotation: it is text that does not name a type.
    """
    return _resolve(function, "output", inspect.signature(function).return_annotation)


def item_annotation(wanted: Any) -> Any:
    """Return the type of one input of a batch, from the annotation of the list.

    Raises:
        TypeError: the annotation is not a list.
    """
    if is_anything(wanted) or wanted is list:
        return Any
    if typing.get_origin(wanted) in (list, Sequence):
        return typing.get_args(wanted)[0]
    raise TypeError(
        f"a batched handler gets a list of inputs, but the annotation is {wanted!r}; write list[...]"
    )


def output_item_annotation(given: Any) -> Any:
    """Return the type of one output of a batch.

    Exception types in a union are dropped: exceptions mark failed items and are not outputs.

    Raises:
        TypeError: the annotation is not a list.
    """
    item = item_annotation(given)
    if typing.get_origin(item) not in (typing.Union, UnionType):
        return item
    members = [
        one for one in typing.get_args(item) if not (isinstance(one, type) and issubclass(one, BaseException))
    ]
    return typing.Union[tuple(members)] if members else Any  # noqa: UP007


def _resolve(function: Callable[..., Any], what: str, found: Any) -> Any:
    bare = inspect.unwrap(function)
    namespace = getattr(bare, "__globals__", {})
    try:
        # Resolve only this annotation: others may use names that exist for type checkers only.
        hints = typing.get_type_hints(
            SimpleNamespace(__annotations__={"it": found}), globalns=namespace, include_extras=True
        )
    except Exception as error:
        raise UnresolvedAnnotation(
            f"the annotation of the {what}, {found!r}, can't be resolved: {type(error).__name__}: {error}"
        ) from error
    return hints["it"]
