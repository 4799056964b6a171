"""Pure: the extremes of every kind of value, as Python values, as JSON text and as text of a query."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

Json = dict[str, Any]

INTEGERS = [
    0, 1, -1, 100, 101, 1000, 1001, 2**31 - 1, 2**31, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64,
    -(2**63), -(2**63) - 1, 10**30, -(10**30), 10**400,
]  # fmt: skip
FLOATS = [0.5, -0.0, 5e-324, 1e16, 1e18, 253_402_300_800.0, 1.7976931348623157e308, -1.7976931348623157e308]
TEXTS = [
    "", " ", "a b", "x" * 101, "x" * 201, "x" * 5_000, "\0", "a\0b", "\x1b[2J", "\x9b2J", "\u202e", "\ufeff",
    "\U0010ffff", "e\u0301" * 100, "../..", "%00", "a..b", ".", '"', "\\", "NaN", "Infinity", "-1", "1.5",
    "null", "true", "٣", "9" * 30, "9" * 400 + ".5", "9" * 5_000, "1e400", "3661d", "4194305TiB",
    "0.0000001ms", "9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
    "1969-12-31", "1970-01-01T00:00:00Z", "2024-02-30T00:00:00Z", "critical", "wait=0", "wait=99999999999",
    "wait=-1",
]  # fmt: skip
#: JSON texts that no Python value gives, and some of which are no JSON.
RAW = [
    "NaN", "-Infinity", "1e400", "1e-400", "-0", "9" * 5_000, '"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"',
    '{"\\ud800":1}', '{"a":1,"a":2}', "[" * 70 + "]" * 70, '{"a":' * 70 + "1" + "}" * 70, "[[],[[]]]", "{}",
    "[]", "[null]", "null", "true", json.dumps(["x"] * 20_000), json.dumps({"": {"": []}}),
]  # fmt: skip


class Unhelpful:
    """Raises whatever it is asked."""

    def __float__(self) -> float:
        raise OverflowError("too long")

    def __str__(self) -> str:
        raise RuntimeError("no text")


def python_values() -> list[Any]:
    """Return the values that only code can give: also what JSON lacks."""
    endless: list[Any] = []
    endless.append(endless)
    return [
        *INTEGERS, *FLOATS, *TEXTS, "\ud800", "\udfff\ud800" * 100, "x" * 2_000_000, math.nan, math.inf,
        -math.inf, None, True, b"\xff", b"x" * 100, [], [1] * 2_000, {}, {1: 2}, {"\ud800": 1}, ("a", 1), {1},
        endless, Decimal("1e400"), Decimal("NaN"), 1j, object(), Unhelpful(), Unhelpful, print,
        datetime.max, datetime.min, datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-23))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=23))), timedelta.max,
    ]  # fmt: skip


def json_texts(schema: Json, document: Json) -> list[str]:
    """Return JSON texts for a field of this schema: those of all kinds, and those at the edges of its own."""
    plain = [json.dumps(value) for value in (*INTEGERS, *FLOATS, *TEXTS)]
    return [*RAW, *plain, *_edges(schema, document)]


def _edges(schema: Json, document: Json, depth: int = 0) -> Iterator[str]:
    schema = resolve(schema, document)
    for inner in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from _edges(inner, document, depth)
    for bound, beyond in (("minimum", -1), ("maximum", 1), ("exclusiveMinimum", -1), ("exclusiveMaximum", 1)):
        if bound in schema:
            yield from (json.dumps(schema[bound]), json.dumps(schema[bound] + beyond))
    for value in (*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())):
        yield json.dumps(value)
    if "maxLength" in schema:
        yield from (json.dumps("x" * (schema["maxLength"] + more)) for more in (0, 1))
    if depth > 2:
        return
    if isinstance(schema.get("items"), dict):
        for item in (*RAW[:10], '"x"', "1", *_edges(schema["items"], document, depth + 1)):
            yield f"[{item}]"
        for more in (0, 1):
            yield json.dumps(["x"] * (schema.get("maxItems", 100) + more))
    for name, inner in schema.get("properties", {}).items():
        for value in ("null", "-1", "1e18", '"x"', *_edges(inner, document, depth + 1)):
            yield f"{{{json.dumps(name)}:{value}}}"


def resolve(schema: Any, document: Json) -> Json:
    """Return the schema, or the one that its reference names."""
    if not isinstance(schema, dict):
        return {}
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return schema
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return resolve(found, document)
