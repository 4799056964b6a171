"""Pure: an operator's `[handlers.NAME]` tables, which override the options of handlers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, get_args

import msgspec

from runner.errors import RefusedStart
from runner.handlers import batch as batches
from runner.handlers.decorator import check_kind, definition_of, handler
from runner.handlers.options import OPTIONS
from runner.handlers.spec import BatchOptions, HandlerOptions, HandlerSpec

#: Stands in a table for Python's None, which TOML lacks.
NONE = "none"
#: Options that only the handler's code can set, and why.
CODE_ONLY = {
    "name": "clients and stored jobs know the handler by it",
    "version": "it identifies the code that an executor runs",
}
_TYPES = {field.name: field.type for field in msgspec.structs.fields(HandlerOptions)}


class Overrides:
    """The parsed tables; `apply_to` overrides a handler's own options.

    `tables` maps a handler's name to options as the decorator takes them; `origin` names the config file or
    the environment in errors.

    Raises:
        RefusedStart: an option does not exist or can't be overridden, or a value can't be parsed.
    """

    def __init__(self, tables: Mapping[str, object], origin: str = "the settings") -> None:
        self._origin = origin
        self._changes = {name: _changes(name, table, origin) for name, table in tables.items()}

    def apply_to(self, spec: HandlerSpec) -> HandlerSpec:
        """Return the handler with the operator's options.

        It is returned as broken, with the reason, if they contradict its code.
        """
        changes = self._changes.get(spec.name)
        if not changes or spec.state == "broken":
            return spec
        own = spec.options
        try:
            if "batch" in changes:
                changes = changes | {"batch": _override_batch(own, changes["batch"])}
            options = msgspec.structs.replace(own, **changes)
            check_kind(spec.name, options, spec.kind)
        except (TypeError, ValueError) as error:
            # The handler's code becomes known while the server runs: an error affects this handler only.
            why = f"{self._origin}: [handlers.{spec.name}] {_without_title(str(error), spec.name)}"
            return msgspec.structs.replace(spec, state="broken", error=why)
        return msgspec.structs.replace(spec, options=options)

    def unused_tables(self, known: Iterable[str]) -> list[str]:
        """Return the names of tables that match none of the `known` handlers."""
        return sorted(set(self._changes) - set(known))


def _changes(name: str, table: object, origin: str) -> dict[str, Any]:
    """Return field of HandlerOptions -> value for the options in the table."""
    title = f"{origin}: [handlers.{name}]"
    if not isinstance(table, Mapping):
        raise RefusedStart(f"{title} must be a table of options, not {table!r}.")
    for option, why in CODE_ONLY.items():
        if option in table:
            raise RefusedStart(f"{title} {option}: can't be overridden, {why}.")
    given = {option: _none_value(option, value) for option, value in table.items()}
    try:
        # A placeholder for the handler's code, which is not needed to parse options.
        read = handler(name, **given)(_placeholder)
    except (TypeError, ValueError) as error:
        raise RefusedStart(f"{title} {_without_title(str(error), name)}.") from None
    definition = definition_of(read)
    assert definition is not None
    read_options = {_field(option): getattr(definition.options, _field(option)) for option in given}
    # Keep `batch` as written: its fields are merged with the handler's own.
    return read_options | ({"batch": given["batch"]} if "batch" in given else {})


async def _placeholder() -> None:
    """Stand in for a handler that accepts every option."""


def _override_batch(own: HandlerOptions, table: object) -> BatchOptions:
    """Return the handler's batch options with the table's fields over them; raises ValueError."""
    if own.batch is None or table is None:
        has = "does not take batches" if own.batch is None else "takes batches"
        raise ValueError(f"batch: the handler's code {has}, which an operator can't change")
    return batches.override_batch(own.batch, table)


def _none_value(option: str, value: Any) -> Any:
    field = _field(option)
    may_be_none = option == "backoff" or NoneType in get_args(_TYPES.get(field))
    return None if value == NONE and may_be_none else value


def _field(option: str) -> str:
    """Return the field of HandlerOptions that belongs to an option of the decorator."""
    return OPTIONS[option][0] if option in OPTIONS else option


def _without_title(text: str, name: str) -> str:
    """Return the decorator's message without the parts that the table's title already contains."""
    return text.removeprefix(f"handler {name!r}: ").removeprefix("option ").rstrip(".")
