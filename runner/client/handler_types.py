"""Pure: references to a handler in a submit: its name, or the decorated class or function.

The protocols let a type checker infer the type of a job's result from the handler.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any, Protocol, TypeVar, cast

from runner.formats import foreign_types
from runner.handlers.decorator import definition_of

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class HandlerClass(Protocol[T_co]):
    """A handler class whose `run` returns a T."""

    def run(self, *args: Any, **kwargs: Any) -> T_co:
        """Run one job."""
        ...


#: Decorated functions and classes, narrow types first: coroutine functions before functions.
AsyncHandlerFunction = Callable[..., Coroutine[Any, Any, T]]
AsyncHandlerClass = type[HandlerClass[Coroutine[Any, Any, T]]]


def handler_name(target: object) -> str:
    """Return the name of a handler that was given by name, class or function.

    Raises:
        TypeError: `target` is neither a name nor decorated by `@handler`.
    """
    if isinstance(target, str):
        return target
    definition = definition_of(target)
    if definition is None:
        shown = getattr(target, "__qualname__", None) or repr(target)
        raise TypeError(f"{shown} is not a handler: pass a name, or decorate it with @handler")
    return definition.name


def output_reader(target: object) -> Callable[[Any], Any] | None:
    """Return a function that converts JSON output to the handler's return type; None if none is needed.

    Only types that contain a pydantic model are converted: the others are JSON already.
    """
    if isinstance(target, str) or "pydantic" not in sys.modules:
        return None
    hint = _output_hint(target)
    if hint is None or not _mentions(hint, _is_model) or _mentions(hint, _is_file):
        # Files have become references, which pydantic can't read as the annotated types.
        return None
    from pydantic import TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(cast(Any, hint))
    return adapter.validate_python


def _output_hint(target: object) -> object:
    run = getattr(target, "run", None) if inspect.isclass(target) else target
    try:
        hint = typing.get_type_hints(run).get("return")
    except (NameError, TypeError):
        # The hint exists for type checkers only: return the JSON as it is.
        return None
    if typing.get_origin(hint) is Generator:
        parts = typing.get_args(hint)
        return parts[2] if len(parts) == 3 else None
    return None if typing.get_origin(hint) in (AsyncGenerator, AsyncIterator, Iterator) else hint


def _mentions(hint: object, is_wanted: Callable[[type], bool], seen: frozenset[object] = frozenset()) -> bool:
    """Return whether the annotation or a field of its models is a class that is wanted."""
    if inspect.isclass(hint) and typing.get_origin(hint) is None:
        if is_wanted(hint):
            return True
        if _is_model(hint) and hint not in seen:
            fields = typing.cast(Any, hint).model_fields.values()
            return any(_mentions(field.annotation, is_wanted, seen | {hint}) for field in fields)
        return False
    return any(_mentions(part, is_wanted, seen) for part in typing.get_args(hint))


def _is_model(kind: type) -> bool:
    from pydantic import BaseModel

    return issubclass(kind, BaseModel)


def _is_file(kind: type) -> bool:
    return foreign_types.is_file_type(kind)
