"""Pure: the option `batch` of authors and operators, checked, with units resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runner.formats import units
from runner.handlers.spec import BatchOptions
from runner.jobs.traits import PATH

#: Bound on batches and slots: each slot has its entry in a page of memory.
ATTEMPTS_MAX = 1000
FIELDS_MAX = 8
_FIELDS = ("max", "wait", "by")


class Batch:
    """Ask for inputs in lists: `@handler("embed", batch=Batch(max=8, wait="20ms"))`.

    `run` gets a list of at most `max` inputs and returns a list with one outcome for each. An incomplete
    batch starts once its oldest job has waited for `wait`. A batch has only jobs with equal values in the
    fields of the input that `by` names.

    Raises:
        ValueError: a value can't be read; the text names it.
    """

    __slots__ = ("batching",)

    def __init__(
        self, max: int = 8, wait: float | str = "20ms", by: str | Sequence[str] | None = None
    ) -> None:
        self.batching = BatchOptions(_read_max(max), units.parse_seconds(wait), _read_by(by))


def read_batch(value: object) -> BatchOptions | None:
    """Return the decorator's `batch` value, parsed.

    Raises:
        ValueError: neither a `Batch` nor a mapping of its fields, or a value that can't be read.
    """
    if value is None or isinstance(value, Batch):
        return None if value is None else value.batching
    return Batch(**_fields(value)).batching


def override_batch(own: BatchOptions, table: object) -> BatchOptions:
    """Return a handler's own options with an operator's fields over them.

    Raises:
        ValueError: a field does not exist, or a value can't be read.
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


def _read_by(value: object) -> tuple[str, ...]:
    named = [value] if isinstance(value, str) else [] if value is None else value
    if (
        not isinstance(named, list | tuple)
        or len(named) > FIELDS_MAX
        or not all(isinstance(name, str) and len(name) <= 200 and PATH.fullmatch(name) for name in named)
    ):
        raise ValueError(f'by must be the name of a field of the input ("a" or "a.b") or some, not {value!r}')
    return tuple(named)
