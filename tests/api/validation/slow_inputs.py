"""Schemas and inputs whose validation takes much longer than their size suggests."""

from __future__ import annotations

from typing import Any

INT_LIST: Any = {"type": "array", "items": {"type": "integer"}}
COUNTS: Any = {"type": "object", "additionalProperties": {"type": "integer"}}
_NEXT: Any = {
    "properties": {
        "next": {"anyOf": [{"$ref": "#/$defs/A1"}, {"$ref": "#/$defs/A2"}, {"type": "null"}]},
    },
    "type": "object",
}
#: What pydantic publishes for two models with a field `next: "A1 | A2 | None"`.
UNION: Any = {"$defs": {"A1": _NEXT, "A2": _NEXT}, "$ref": "#/$defs/A1"}


def chain(levels: int, end: Any) -> Any:
    """An input for UNION; each level doubles the work if `end` is wrong."""
    value = end
    for _ in range(levels):
        value = {"next": value}
    return value
