"""Pure: the traits of a job: what its input and its timeout say of how it will run, as one short text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

#: A model's or group's name is at most so long; a text of a size that is longer counts by its length.
NAME_CHARS_MAX = 200
SIZE_CHARS_MAX = 40
#: A timeout of a thousand years and more bounds nothing.
FOREVER_S = 2.0**35
#: The text of a job of which nothing is said.
NEUTRAL = "[null]"
#: How a field of the input is named: "a", or "a.b" for a field of a field.
PATH = re.compile(r"[^.\x00-\x1f]+(\.[^.\x00-\x1f]+)*")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MISSING = object()
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class JobTraits(NamedTuple):
    """What tells jobs of one handler apart for the plan; neutral where nothing was said."""

    tenant: str = ""
    #: What `model_by` named: an executor is loaded for one model.
    model: str = ""
    #: What `size_by` named, numbers rounded up to powers of two: jobs of one size are expected to need alike.
    size: str = ""
    #: Only jobs of one group go in one batch.
    group: str = ""
    #: No attempt runs longer, in seconds: the timeout, rounded up to a power of the square root of two.
    limit_s: float = math.inf


class InputTraits(NamedTuple):
    """What an input says."""

    model: str
    size: str
    group: str


class TraitError(NamedTuple):
    """Why an input can't be read."""

    #: JSON pointer inside the input.
    pointer: str
    message: str


@lru_cache(maxsize=8192)
def encode_traits(tenant: str, model: str, size: str, group: str, timeout_s: float | None) -> str:
    """The traits as one text, equal for equal traits: a JSON list without what is neutral at its end."""
    fields: list[Any] = [_limit_step(timeout_s), tenant, model, size, group]
    while len(fields) > 1 and fields[-1] == "":
        fields.pop()
    return _encode(fields).decode()


@lru_cache(maxsize=8192)
def decode_traits(text: str) -> JobTraits:
    """The traits that a text of `text_of` tells."""
    step, *names = _decode(text)
    tenant, model, size, group = (*names, "", "", "", "")[:4]
    return JobTraits(tenant, model, size, group, math.inf if step is None else _limit_s(step))


class TraitReader:
    """Where a handler's inputs tell their traits: paths of fields, "a.b" for a field of a field."""

    def __init__(
        self,
        model_by: str | None = None,
        size_by: Iterable[str] = (),
        group_by: Iterable[str] = (),
        schema: Any = True,
    ) -> None:
        """`schema` is the input's; a field that is left out counts as the default that it names."""
        self._model = None if model_by is None else _InputField(model_by, schema)
        self._size = tuple(_InputField(path, schema) for path in size_by)
        self._group = tuple(_InputField(path, schema) for path in group_by)

    def read(self, value: Any) -> InputTraits | TraitError:
        """What the input says, or the one thing that keeps it from being read."""
        names = []
        for field in (self._model, *self._group):
            named = "" if field is None else _name_text(field.read(value))
            if named is None:
                assert field is not None
                what = f"must be a number, true, false or a text of at most {NAME_CHARS_MAX} characters"
                return TraitError(field.pointer, f"{what} without control characters")
            names.append(named)
        size = ",".join(_size_text(field.read(value)) for field in self._size)
        # No name has the character between them.
        return InputTraits(names[0], size, "\x1f".join(names[1:]))


class _InputField:
    """A path into an input."""

    __slots__ = ("_default", "_parts", "pointer")

    def __init__(self, path: str, schema: Any) -> None:
        self._parts = path.split(".")
        self._default = _default(schema, self._parts)
        self.pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in self._parts)

    def read(self, value: Any) -> Any:
        """What stands there; None where nothing does."""
        for part in self._parts:
            value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
        return self._default if value is _MISSING else value


def _default(schema: Any, parts: list[str]) -> Any:
    subschema = schema
    for part in parts:
        if isinstance(subschema, Mapping) and isinstance(reference := subschema.get("$ref"), str):
            name = reference.removeprefix("#/$defs/")
            subschema = schema.get("$defs", {}).get(name)
        subschema = subschema.get("properties", {}).get(part) if isinstance(subschema, Mapping) else None
    return subschema.get("default") if isinstance(subschema, Mapping) else None


def _name_text(value: Any) -> str | None:
    """A scalar as text; None for what names nothing."""
    if value is None:
        return ""
    if isinstance(value, str):
        return None if len(value) > NAME_CHARS_MAX or _CONTROL.search(value) else value
    return None if isinstance(value, dict | list) else _encode(value).decode()


def _size_text(value: Any) -> str:
    """A value of a size as text, so that there are few: lists and objects count by how much they hold."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if len(value) <= SIZE_CHARS_MAX:
            return _CONTROL.sub(" ", value)
        value = len(value)
    elif isinstance(value, dict | list):
        value = len(value)
    if value == 0:
        return "0"
    mantissa, exponent = math.frexp(abs(value))
    rounded = math.ldexp(1.0, exponent - (mantissa == 0.5))
    return f"{math.copysign(rounded, value):.20g}"


def _limit_step(timeout_s: float | None) -> int | None:
    """The least k for which sqrt(2)**k is as long; None where there is no limit."""
    if timeout_s is None or timeout_s >= FOREVER_S:
        return None
    step = math.ceil(2 * math.log2(timeout_s))
    # The logarithm is a little off: one step less or more than what it says may be right.
    while _limit_s(step) < timeout_s:
        step += 1
    while _limit_s(step - 1) >= timeout_s:
        step -= 1
    return step


def _limit_s(step: int) -> float:
    return math.pow(2.0, step / 2)
