"""Pure: traits of a job: facts from its input and timeout that matter to the planner, as one short text.

Jobs with equal traits are interchangeable for the planner, which handles them as one class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from runner.bounds import NAME_CHARS_MAX

#: A longer text counts by its length when it is part of a size.
SIZE_CHARS_MAX = 40
#: Timeouts of this length, over a thousand years, count as no limit.
FOREVER_S = 2.0**35
#: The text of a job without traits.
NEUTRAL = "[null]"
#: Path of a field of the input: "a", or "a.b" for a nested field.
PATH = re.compile(r"[^.\x00-\x1f\ud800-\udfff]+(\.[^.\x00-\x1f\ud800-\udfff]+)*")
#: A character that neither a name nor a tag contains: JSON has no lone surrogates.
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_MISSING = object()
#: Bound on the step of a limit: beyond it the seconds are no finite float.
_STEP_MAX = 2_000
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class JobTraits(NamedTuple):
    """Traits that distinguish jobs of one handler for the planner; the defaults are neutral."""

    tenant: str = ""
    #: Value of the field that `model_by` names: an executor is loaded for one model.
    model: str = ""
    #: Values of `size_by`, numbers rounded up to powers of two: jobs of one size should need the same.
    size: str = ""
    #: A batch has jobs of one group only.
    group: str = ""
    #: Bound on an attempt's run, in seconds: the timeout, rounded up to a power of sqrt(2).
    limit_s: float = math.inf


class InputTraits(NamedTuple):
    """Traits that come from the input."""

    model: str
    size: str
    group: str


class TraitError(NamedTuple):
    """Why the traits of an input can't be read."""

    #: JSON pointer inside the input.
    pointer: str
    message: str


@lru_cache(maxsize=8192)
def encode_traits(tenant: str, model: str, size: str, group: str, timeout_s: float | None) -> str:
    """Return the traits as text: a JSON list without neutral values at its end, equal for equal traits.

    `timeout_s` None means no limit.
    """
    fields: list[Any] = [_limit_step(timeout_s), tenant, model, size, group]
    while len(fields) > 1 and fields[-1] == "":
        fields.pop()
    return _encode(fields).decode()


@lru_cache(maxsize=8192)
def decode_traits(text: str) -> JobTraits:
    """Return the traits in a text made by `encode_traits`."""
    step, *names = _decode(text)
    tenant, model, size, group = (*names, "", "", "", "")[:4]
    return JobTraits(tenant, model, size, group, math.inf if step is None else _limit_s(step))


def is_traits_text(text: str) -> bool:
    """Return whether `decode_traits` can read a text, which may come from a damaged row."""
    try:
        fields = _decode(text)
    except (msgspec.DecodeError, ValueError):
        return False
    if not isinstance(fields, list) or not 1 <= len(fields) <= len(JobTraits._fields):
        return False
    step, *names = fields
    is_step = step is None or (type(step) is int and abs(step) <= _STEP_MAX)
    return is_step and all(isinstance(name, str) for name in names)


class TraitReader:
    """Reads the traits of inputs from the fields that a handler's options name ("a.b" for a nested field)."""

    def __init__(
        self,
        model_by: str | None = None,
        size_by: Iterable[str] = (),
        group_by: Iterable[str] = (),
        schema: Any = True,
    ) -> None:
        """`schema` is the input's; a field that is left out counts as its default there."""
        self._model = None if model_by is None else _InputField(model_by, schema)
        self._size = tuple(_InputField(path, schema) for path in size_by)
        self._group = tuple(_InputField(path, schema) for path in group_by)

    def read(self, value: Any) -> InputTraits | TraitError:
        """Return the traits of a decoded input, or the first field that can't be used."""
        names = []
        for field in (self._model, *self._group):
            named = "" if field is None else _name_text(field.read(value))
            if named is None:
                assert field is not None
                what = f"must be a number, true, false or a string of at most {NAME_CHARS_MAX} characters"
                return TraitError(field.pointer, f"{what} without control characters")
            names.append(named)
        size = ",".join(_size_text(field.read(value)) for field in self._size)
        # Names have no control characters, so none contains the separator.
        return InputTraits(names[0], size, "\x1f".join(names[1:]))


class _InputField:
    """A field of an input, by its path; missing values get the schema's default."""

    __slots__ = ("_default", "_parts", "pointer")

    def __init__(self, path: str, schema: Any) -> None:
        self._parts = path.split(".")
        self._default = _default(schema, self._parts)
        self.pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in self._parts)

    def read(self, value: Any) -> Any:
        """Return the value at the path, or the schema's default (None without one)."""
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
    """Return a scalar as text; None if it can't be a name."""
    if value is None:
        return ""
    if isinstance(value, str):
        return None if len(value) > NAME_CHARS_MAX or CONTROL_CHARACTER.search(value) else value
    return None if isinstance(value, dict | list) else _encode(value).decode()


def _size_text(value: Any) -> str:
    """Return the text of a size: numbers are rounded, lists and objects count by length.

    The aim is few distinct sizes, so that each collects enough observations.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if len(value) <= SIZE_CHARS_MAX:
            return CONTROL_CHARACTER.sub(" ", value)
        value = len(value)
    elif isinstance(value, dict | list):
        value = len(value)
    if value == 0:
        return "0"
    mantissa, exponent = math.frexp(abs(value))
    rounded = math.ldexp(1.0, exponent - (mantissa == 0.5))
    return f"{math.copysign(rounded, value):.20g}"


def _limit_step(timeout_s: float | None) -> int | None:
    """Return the least k with sqrt(2)**k >= timeout_s; None without a timeout."""
    if timeout_s is None or timeout_s >= FOREVER_S:
        return None
    step = math.ceil(2 * math.log2(timeout_s))
    # The logarithm is slightly inexact: correct the result by one step if necessary.
    while _limit_s(step) < timeout_s:
        step += 1
    while _limit_s(step - 1) >= timeout_s:
        step -= 1
    return step


def _limit_s(step: int) -> float:
    return math.pow(2.0, step / 2)
