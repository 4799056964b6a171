"""Pure: the strict codec for values of handlers: JSON values, and what pydantic turns into them.

Strict, because a lenient codec would change values silently: NaN to null, a large integer to a float.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import isfinite
from typing import Any

import msgspec

from runner.bounds import DEPTH_MAX, INT_MAX, INT_MIN
from runner.formats import foreign_types

_ATOMS = frozenset({str, bool, type(None)})
_dump = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode
#: Saves an image, a figure, a path or bytes as a file and returns its reference.
SaveFile = Callable[[Any], dict[str, Any]]


class NotSerialisable(ValueError):
    """A value that is not JSON; the text says what is wrong and where, as a JSON pointer."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.path: list[str] = []

    def __str__(self) -> str:
        pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in reversed(self.path))
        return f"{self.why} at {pointer}" if pointer else self.why


def encode(value: Any, save: SaveFile | None = None, serializer: Any = None) -> bytes:
    """Return the JSON text (UTF-8) of a value.

    Besides JSON, the value may hold pydantic models, dataclasses, dates and times, UUIDs, enumerations,
    decimals, sets, tuples and numpy scalars, which become what pydantic makes of them.

    Args:
        save: saves an image, figure, path or bytes found in the value and returns the reference that takes
            its place. None: such an object is refused.
        serializer: the pydantic serializer of the value's annotation; None: types of values decide.

    Raises:
        NotSerialisable: NaN, infinity, an integer beyond 64 bits, a lone surrogate, a key that is not text,
            an object of another type, or nesting beyond DEPTH_MAX (so also a cycle).
    """
    if serializer is not None:
        value = _dumped(value, serializer, save, "the result")
    try:
        return _dump(value if value is None else _plain(value, 0, save))
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


def _plain(value: Any, depth: int, save: SaveFile | None) -> Any:
    """Return the value itself if it is plain JSON, otherwise a plain copy."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is float:
        if not isfinite(value):
            raise NotSerialisable(f"{value!r} is not a JSON number")
        return value
    if kind is int:
        if not INT_MIN <= value <= INT_MAX:
            raise NotSerialisable("an integer beyond 64 bits")
        return value
    if depth >= DEPTH_MAX:
        raise NotSerialisable(f"nested deeper than {DEPTH_MAX}, or a cycle")
    if kind is dict:
        return _plain_dict(value, depth + 1, save)
    if kind is list or kind is tuple:
        return _plain_list(value, depth + 1, save)
    return _plain_foreign(value, kind, depth, save)


def _plain_dict(value: dict[Any, Any], depth: int, save: SaveFile | None) -> dict[str, Any]:
    if set(map(type, value)) - {str}:
        value = {_key(key): item for key, item in value.items()}
    changed: dict[str, Any] | None = None
    for key, item in value.items():
        kind = type(item)
        # Without a call, as most fields of most outputs are such values.
        if kind in _ATOMS or (kind is float and isfinite(item)):
            continue
        try:
            plain = _plain(item, depth, save)
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
    found = key
    if foreign_types.is_numpy_scalar(key):
        found = key.item()
    elif foreign_types.is_pydantic_atom(key):
        found = _atom(key)
    if isinstance(found, (str, int)) and not isinstance(found, bool):
        return str(found)
    raise NotSerialisable(f"a key of type {type(key).__name__}; keys must be strings")


def _plain_list(value: list[Any] | tuple[Any, ...], depth: int, save: SaveFile | None) -> Any:
    # Fast for a million numbers: collect the types in C, then make one pass per type.
    kinds = set(map(type, value))
    if kinds <= _ATOMS or (kinds == {float} and all(map(isfinite, value))):
        return value
    if kinds == {int} and min(value) >= INT_MIN and max(value) <= INT_MAX:
        return value
    changed: list[Any] | None = None
    for index, item in enumerate(value):
        try:
            plain = _plain(item, depth, save)
        except NotSerialisable as error:
            error.path.append(str(index))
            raise
        if plain is not item:
            changed = list(value) if changed is None else changed
            changed[index] = plain
    return value if changed is None else changed


def _plain_foreign(value: Any, kind: type, depth: int, save: SaveFile | None) -> Any:
    serializer = getattr(kind, "__pydantic_serializer__", None)
    if serializer is not None:
        return _plain(_dumped(value, serializer, save, kind.__qualname__), depth + 1, save)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return _plain(int.__int__(value), depth, save)
    if isinstance(value, float):
        return _plain(float.__float__(value), depth, save)
    if isinstance(value, dict):
        return _plain_dict(dict(value), depth + 1, save)
    if isinstance(value, (list, tuple, set, frozenset)):
        return _plain_list(list(value), depth + 1, save)
    if foreign_types.is_pydantic_atom(value):
        return _plain(_atom(value), depth + 1, save)
    if foreign_types.is_file(value):
        if save is None:
            raise NotSerialisable(f"{_name(kind)} can't be a JSON value; save it by ctx.save_file")
        return save(value)
    if foreign_types.is_numpy_scalar(value):
        return _plain(value.item(), depth + 1, save)
    fields = getattr(kind, "__dataclass_fields__", None)
    if fields is not None:
        dataclasses = sys.modules["dataclasses"]
        content = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _plain_dict(content, depth + 1, save)
    raise NotSerialisable(f"{_name(kind)}; {foreign_types.hint_instead_of(kind)}")


def _name(kind: type) -> str:
    return f"an object of type {kind.__module__}.{kind.__qualname__}"


def _atom(value: Any) -> Any:
    """Return what pydantic makes of a date, time, UUID, enumeration member or decimal."""
    if isinstance(value, sys.modules["enum"].Enum):
        return value.value
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)


def _dumped(value: Any, serializer: Any, save: SaveFile | None, name: str) -> Any:
    """Return what a pydantic serializer makes of a value, by the fields' own names.

    Plain values, except that files in it are left as they are where they can be saved. `name` is that of
    the value in errors.
    """
    refused: list[NotSerialisable] = []

    def convert_unknown(part: Any) -> Any:
        try:
            return _plain(part, 0, save)
        except NotSerialisable as error:
            # pydantic replaces the exceptions of its fallback by one of its own.
            refused.append(error)
            raise

    try:
        if save is not None:
            # As JSON, pydantic would make text of bytes and paths.
            content = serializer.to_python(value, mode="python", by_alias=False, warnings=False)
            if _holds_file(content, 0):
                return content
        return serializer.to_python(
            value, mode="json", by_alias=False, warnings=False, fallback=convert_unknown
        )
    except ValueError as error:
        if refused:
            raise refused[0] from None
        raise NotSerialisable(f"cannot serialise {name}: {error}") from error


def _holds_file(value: Any, depth: int) -> bool:
    """Return whether a dumped value holds something that must be saved as a file."""
    kind = type(value)
    if kind in _ATOMS or kind is float or kind is int or depth >= DEPTH_MAX:
        return False
    if isinstance(value, dict):
        return any(_holds_file(part, depth + 1) for part in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(_holds_file(part, depth + 1) for part in value)
    return foreign_types.is_file(value)
