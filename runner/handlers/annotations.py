"""Pure: what a handler's annotations say of its input and output."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from types import SimpleNamespace, UnionType
from typing import Any, NamedTuple


class Plain(NamedTuple):
    """An annotation that needs no pydantic."""

    types: tuple[type, ...]
    schema: bytes
    words: str
    convert: Callable[[Any], Any] | None = None


_ANYTHING: tuple[Any, ...] = (inspect.Parameter.empty, Any, object)
_PLAIN: dict[Any, Plain] = {
    dict: Plain((dict,), b'{"type":"object"}', "an object"),
    dict[str, Any]: Plain((dict,), b'{"type":"object"}', "an object"),
    dict[str, object]: Plain((dict,), b'{"type":"object"}', "an object"),
    list: Plain((list,), b'{"type":"array"}', "an array"),
    list[Any]: Plain((list,), b'{"type":"array"}', "an array"),
    str: Plain((str,), b'{"type":"string"}', "a string"),
    bool: Plain((bool,), b'{"type":"boolean"}', "true or false"),
    int: Plain((int,), b'{"type":"integer"}', "an integer"),
    float: Plain((float, int), b'{"type":"number"}', "a number", float),
    None: Plain((type(None),), b'{"type":"null"}', "null"),
    type(None): Plain((type(None),), b'{"type":"null"}', "null"),
}


class Unresolved(TypeError):
    """An annotation that names something which is not there."""


def is_anything(annotation: Any) -> bool:
    """Whether any JSON value fits."""
    return any(annotation is one for one in _ANYTHING)


def plain(annotation: Any) -> Plain | None:
    """How an annotation is checked without pydantic, where that is possible."""
    try:
        return _PLAIN.get(annotation)
    except TypeError:
        # Not hashable, such as Annotated with a list in it.
        return None


def of_input(function: Callable[..., Any]) -> Any:
    """The annotation of the first parameter; `inspect.Parameter.empty` where there is none.

    Raises:
        Unresolved: it is text that does not name a type.
    """
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            break
        return _resolve(function, "input", parameter.annotation)
    return inspect.Parameter.empty


def of_output(function: Callable[..., Any]) -> Any:
    """The annotation of what is returned.

    Raises:
        Unresolved: it is text that does not name a type.
    """
    return _resolve(function, "output", inspect.signature(function).return_annotation)


def of_item(wanted: Any) -> Any:
    """What one input of a batch is, from the annotation of the list.

    Raises:
        TypeError: it is not annotated as a list.
    """
    if is_anything(wanted) or wanted is list:
        return Any
    if typing.get_origin(wanted) in (list, Sequence):
        return typing.get_args(wanted)[0]
    raise TypeError(f"a batch's input is a list, but it is annotated as {wanted!r}; write list[...]")


def of_outcome(given: Any) -> Any:
    """What one output of a batch is; exceptions stand for items that failed and are no output.

    Raises:
        TypeError: it is not annotated as a list.
    """
    item = of_item(given)
    if typing.get_origin(item) not in (typing.Union, UnionType):
        return item
    members = [
        one for one in typing.get_args(item) if not (isinstance(one, type) and issubclass(one, BaseException))
    ]
    return typing.Union[tuple(members)] if members else Any  # noqa: UP007


def _resolve(function: Callable[..., Any], what: str, found: Any) -> Any:
    bare = inspect.unwrap(function)
    space = getattr(bare, "__globals__", {})
    try:
        # Only the one annotation that is needed: others may name what exists for type checkers alone.
        hints = typing.get_type_hints(
            SimpleNamespace(__annotations__={"it": found}), globalns=space, include_extras=True
        )
    except Exception as error:
        raise Unresolved(
            f"the annotation of the {what}, {found!r}, can't be resolved: {type(error).__name__}: {error}"
        ) from error
    return hints["it"]
