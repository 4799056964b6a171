"""The bound on how often a schema visits one value."""

from __future__ import annotations

from typing import Any

import pytest

from api.validation.schema_visits import VISITS_MAX, count_visits

INT: Any = {"type": "integer"}
NULL: Any = {"type": "null"}


def union(*parts: Any) -> dict[str, Any]:
    return {"anyOf": list(parts)}


def defined(name: str, **definitions: Any) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}", "$defs": definitions}


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


@pytest.mark.parametrize(
    ("schema", "visits"),
    [
        (True, 1),
        ({}, 1),
        (INT, 1),
        (union(INT, NULL), 3),
        ({"properties": {"a": INT, "b": union(INT, NULL)}}, 3),
        ({"items": union(INT, NULL), "prefixItems": [INT]}, 3),
        ({"properties": {"a": INT}, "patternProperties": {"a": INT, ".*": INT}}, 3),
        ({"items": INT, "contains": INT}, 2),
        # Both alternatives descend into the same items.
        (union({"items": INT}, {"items": INT}, {"items": INT}), 4),
        (union({"items": union(INT, NULL)}, {"items": union(INT, NULL)}), 6),
        ({"if": INT, "then": INT, "else": INT, "not": INT}, 5),
        ({"dependentSchemas": {"a": INT, "b": INT}}, 3),
        # A reference to itself costs nothing more as long as it descends once.
        (defined("Tree", Tree={"properties": {"kids": {"items": ref("Tree")}}}), 2),
        (defined("Node", Node={"properties": {"left": union(ref("Node"), NULL), "right": ref("Node")}}), 4),
        ({"properties": {"a/b": INT, "more": {"$ref": "#/properties/a~1b"}}}, 2),
    ],
)
def test_the_visits_of_each_value_are_bounded(schema: Any, visits: int) -> None:
    assert count_visits(schema) == visits


@pytest.mark.parametrize(
    "schema",
    [
        defined(
            "A",
            A={"properties": {"next": union(ref("A"), ref("B"), NULL)}},
            B={"properties": {"next": union(ref("A"), ref("B"), NULL)}},
        ),
        {"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]},
        {"allOf": [{"$ref": "#"}]},
        {"unevaluatedProperties": False},
        {"properties": {"a": {"$dynamicRef": "#node"}}},
        {"$ref": "#/$defs/missing"},
        {"$ref": "other.json"},
        union(*[INT] * (VISITS_MAX + 1)),
    ],
)
def test_a_schema_that_branches_at_each_level_has_no_bound(schema: Any) -> None:
    assert count_visits(schema) is None


def test_alternatives_of_alternatives_multiply() -> None:
    """Ten levels of three alternatives, each defined once: small to write, 3**10 visits of the innermost."""
    levels: dict[str, Any] = {"L0": INT}
    for level in range(1, 11):
        part = {"properties": {"a": ref(f"L{level - 1}")}}
        levels[f"L{level}"] = union(part, part, part)
    assert count_visits(defined("L3", **levels)) == 54
    assert count_visits(defined("L10", **levels)) is None


def test_a_schema_nested_too_deeply_has_no_bound() -> None:
    schema: Any = INT
    for _ in range(5000):
        schema = {"items": schema}
    assert count_visits(schema) is None
