"""Pure: parses and checks the option `batch` of authors and operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runner.bounds import ATTEMPTS_MAX, FIELDS_MAX, PATH_CHARS_MAX
from runner.formats import units
from runner.handlers.spec import BatchOptions
from runner.jobs.traits import PATH

_FIELDS = ("max", "wait", "by")


class Batch:
    """Let a handler get inputs in lists: `@handler("embed", batch=Batch(max=8, wait="20ms"))`.

    `run` gets a list of at most `max` inputs (1 to 1000) and returns a list with one outcome for each. An
    incomplete batch starts once its oldest job has waited for `wait` (seconds or text such as "20ms"). All
    jobs of a batch have equal values in the input fields that `by` names.

    Raises:
        ValueError: a value can't be parsed; the text names the field.
    """

    __slots__ = ("batching",)

    def __init__(
        self, max: int = 8, wait: float | str = "20ms", by: str | Sequence[str] | None = None
    ) -> None:
        self.batching = BatchOptions(_read_max(max), units.parse_seconds(wait), _read_by(by))


def read_batch(value: object) -> BatchOptions | None:
    """Return the decorator's `batch` value, parsed; None without one.

    Raises:
        ValueError: neither a `Batch` nor a mapping of its fields, or a value that can't be parsed.
    """
    if value is None or isinstance(value, Batch):
        return None if value is None else value.batching
    return Batch(**_fields(value)).batching


def override_batch(own: BatchOptions, table: object) -> BatchOptions:
    """Return a handler's own batch options with an operator's fields over them.

    Raises:
        ValueError: a field does not exist, or a value can't be parsed.
    """
    given = _fields(table)
    own_fields: dict[str, Any] = {"max": own.max, "wait": own.wait_s, "by": own.by}
    return Batch(**own_fields | given).batching


def _fields(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not set(value) <= set(_FIELDS):
        raise ValueError(f'must be Batch(max=8, wait="20ms", by=None) or a mapping of these, not {value!r}')
    return dict(value)


def _read_max(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= ATTEMPTS_MAX:
        raise ValueError(f"max must be a whole number from 1 to {ATTEMPTS_MAX}, not {value!r}")
    return value


def _is_path(name: object) -> bool:
    return isinstance(name, str) and len(name) <= PATH_CHARS_MAX and PATH.fullmatch(name) is not None


def _read_by(value: object) -> tuple[str, ...]:
    named = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(named, list | tuple) or len(named) > FIELDS_MAX or not all(map(_is_path, named)):
        raise ValueError(f'by must be a field of the input ("a" or "a.b") or a list of fields, not {value!r}')
    return tuple(named)
