"""Pure: a bound on the work of a schema: how many of its parts are applied to one value of an input.

`anyOf` and the like apply several schemas to the same value. Where these descend into the value, and branch
again there, the number of visits grows with each level: exponentially if the schema refers to itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

#: Visits of one value beyond this count as unbounded.
VISITS_MAX = 1000
#: Passes over all references until their visits must have settled.
_PASSES_MAX = 100
_IN_PLACE = ("if", "then", "else", "not")
_IN_PLACE_LISTS = ("anyOf", "oneOf", "allOf")
_IN_PLACE_NAMED = ("dependentSchemas", "dependencies")
#: Keywords whose work depends on more than the values below them, and references that move.
_UNBOUNDED = frozenset(
    {"unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$recursiveRef", "$id", "id", "$anchor"}
)


class _Visits(NamedTuple):
    """Most visits of the value itself, and of any one value inside."""

    here: int
    below: int


class _Unbounded(Exception):
    """The number of visits has no useful bound."""


def count_visits(schema: Any) -> int | None:
    """Return the most schemas that are applied to any one value of an input; None if there is no bound.

    The bound is an upper one: it assumes that every alternative is tried.
    """
    try:
        return _Counter(schema).count()
    except (_Unbounded, RecursionError):
        return None


class _Counter:
    """The visits of each referenced schema, raised in passes until they no longer change."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._references: dict[str, _Visits] = {"#": _Visits(0, 0)}

    def count(self) -> int:
        for _ in range(_PASSES_MAX):
            before = dict(self._references)
            for reference in before:
                visits = self._measure(self._resolve(reference))
                if max(visits) > VISITS_MAX:
                    raise _Unbounded
                self._references[reference] = visits
            if self._references == before:
                return max(self._references["#"])
        raise _Unbounded

    def _measure(self, schema: Any) -> _Visits:
        if not isinstance(schema, dict):
            return _Visits(1, 0)
        if not _UNBOUNDED.isdisjoint(schema):
            raise _Unbounded
        here, below = 1, self._measure_below(schema)
        for part in self._parts_in_place(schema):
            here += part.here
            below += part.below
        return _Visits(here, below)

    def _parts_in_place(self, schema: dict[str, Any]) -> Iterator[_Visits]:
        """Yield the visits by each schema that is applied to the same value."""
        for keyword in _IN_PLACE:
            if keyword in schema:
                yield self._measure(schema[keyword])
        for keyword in _IN_PLACE_LISTS:
            yield from map(self._measure, _list(schema.get(keyword, [])))
        for keyword in _IN_PLACE_NAMED:
            yield from map(self._measure, _values(schema.get(keyword)))
        reference = schema.get("$ref")
        if isinstance(reference, str):
            yield self._references.setdefault(reference, _Visits(0, 0))

    def _measure_below(self, schema: dict[str, Any]) -> int:
        """Return the most visits of a value inside: its parts are applied to different values, or added."""
        named = [*_values(schema.get("properties")), schema.get("additionalProperties")]
        by_pattern = [*_values(schema.get("patternProperties")), schema.get("propertyNames")]
        items = [
            *_list(schema.get("prefixItems")),
            *_list(schema.get("items")),
            schema.get("additionalItems"),
        ]
        return max(
            max(map(self._visits, named)) + sum(map(self._visits, by_pattern)),
            max(map(self._visits, items)) + self._visits(schema.get("contains")),
        )

    def _visits(self, schema: Any) -> int:
        return max(self._measure(schema)) if isinstance(schema, dict) else 0

    def _resolve(self, reference: str) -> Any:
        found = self._schema
        if not reference.startswith("#"):
            raise _Unbounded
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                raise _Unbounded
            found = found[name]
        return found


def _values(named: Any) -> list[Any]:
    return list(named.values()) if isinstance(named, dict) else []


def _list(schemas: Any) -> list[Any]:
    return schemas if isinstance(schemas, list) else [schemas]
