"""Pure: the strict codec for values of handlers: JSON values and pydantic models, nothing else.

Strict, because a lenient codec would change values silently: NaN to null, a large integer to a float.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import msgspec

#: Largest nesting depth: readers of a value recurse as deep.
DEPTH_MAX = 256
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_ATOMS = frozenset({str, bool, type(None)})
_dump = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


class NotSerialisable(ValueError):
    """A value that is not JSON; the text says what is wrong and where, as a JSON pointer."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.path: list[str] = []

    def __str__(self) -> str:
        pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in reversed(self.path))
        return f"{self.why} at {pointer}" if pointer else self.why


def encode(value: Any) -> bytes:
    """Return the JSON text (UTF-8) of a JSON value or pydantic model.

    Dataclasses and models inside lists and dicts are converted as well; tuples become lists.

    Raises:
        NotSerialisable: NaN, infinity, an integer beyond 64 bits, a lone surrogate, a key that is not text,
            an object of another type, or nesting beyond DEPTH_MAX (so also a cycle).
    """
    try:
        return _dump(value if value is None else _plain(value, 0))
    except UnicodeEncodeError:
        raise NotSerialisable("text with a lone surrogate") from None


def encode_text(value: str) -> bytes:
    """Return the JSON text of a string; lone surrogates become question marks, so this never fails."""
    try:
        return _dump(value)
    except UnicodeEncodeError:
        return _dump(replace_surrogates(value))


def replace_surrogates(value: str) -> str:
    """Return the string with lone surrogates replaced by question marks."""
    return value.encode("utf-8", "replace").decode("utf-8")


def _plain(value: Any, depth: int) -> Any:
    """Return the value itself if it is plain JSON, otherwise a plain copy."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is float:
        if not isfinite(value):
            raise NotSerialisable(f"{value!r} is not a JSON number")
        return value
    if kind is int:
        if not _INT_MIN <= value <= _INT_MAX:
            raise NotSerialisable("an integer beyond 64 bits")
        return value
    if depth >= DEPTH_MAX:
        raise NotSerialisable(f"nested deeper than {DEPTH_MAX}, or a cycle")
    if kind is dict:
        return _plain_dict(value, depth + 1)
    if kind is list or kind is tuple:
        return _plain_list(value, depth + 1)
    return _plain_foreign(value, kind, depth)


def _plain_dict(value: dict[Any, Any], depth: int) -> dict[str, Any]:
    if set(map(type, value)) - {str}:
        value = {_key(key): item for key, item in value.items()}
    changed: dict[str, Any] | None = None
    for key, item in value.items():
        try:
            plain = _plain(item, depth)
        except NotSerialisable as error:
            error.path.append(str(key))
            raise
        if plain is not item:
            changed = dict(value) if changed is None else changed
            changed[key] = plain
    return value if changed is None else changed


def _key(key: Any) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return str(int(key))
    raise NotSerialisable(f"a key of type {type(key).__name__}; keys must be strings")


def _plain_list(value: list[Any] | tuple[Any, ...], depth: int) -> Any:
    # Fast for a million numbers: collect the types in C, then make one pass per type.
    kinds = set(map(type, value))
    if kinds <= _ATOMS or (kinds == {float} and all(map(isfinite, value))):
        return value
    if kinds == {int} and min(value) >= _INT_MIN and max(value) <= _INT_MAX:
        return value
    changed: list[Any] | None = None
    for index, item in enumerate(value):
        try:
            plain = _plain(item, depth)
        except NotSerialisable as error:
            error.path.append(str(index))
            raise
        if plain is not item:
            changed = list(value) if changed is None else changed
            changed[index] = plain
    return value if changed is None else changed


def _plain_foreign(value: Any, kind: type, depth: int) -> Any:
    if getattr(kind, "__pydantic_serializer__", None) is not None:
        return _plain(_dumped(value, kind), depth + 1)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return _plain(int.__int__(value), depth)
    if isinstance(value, float):
        return _plain(float.__float__(value), depth)
    if isinstance(value, dict):
        return _plain_dict(dict(value), depth + 1)
    if isinstance(value, (list, tuple)):
        return _plain_list(list(value), depth + 1)
    raise NotSerialisable(f"an object of type {kind.__module__}.{kind.__qualname__}")


def _dumped(value: Any, kind: Any) -> Any:
    """Return a pydantic model or dataclass as plain values, by its fields' own names."""
    try:
        return kind.__pydantic_serializer__.to_python(value, mode="json", by_alias=False)
    except ValueError as error:
        raise NotSerialisable(f"cannot serialise {kind.__qualname__}: {error}") from error
