"""Pure: turns the text of `key=text` into the type that a handler's input schema asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isfinite
from typing import Any

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
#: JSON Schema keywords with alternatives for one value.
_ALTERNATIVES = ("anyOf", "oneOf", "allOf")
#: Longest chain of references that is followed, so that a circle ends.
_REFERENCES_MAX = 20


def may_be_coerced(text: str) -> bool:
    """Return whether the text could be a number or a boolean."""
    return text in ("true", "false") or text[:1].isdigit() or text[:1] in ("+", "-", ".")


def coerce(text: str, path: Sequence[str], schema: Any) -> Any:
    """Return the value of a field: an integer, number or boolean where the schema allows no text.

    Args:
        path: the names of the fields on the way to the value.
        schema: JSON Schema of the whole input.
    """
    types = _types_at(schema, path)
    if "string" in types or "anything" in types:
        return text
    if "boolean" in types and text in ("true", "false"):
        return text == "true"
    if types & {"integer", "number"} and _INTEGER.fullmatch(text):
        return int(text)
    if "number" in types:
        try:
            number = float(text)
        except ValueError:
            return text
        return number if isfinite(number) else text
    return text


def _types_at(schema: Any, path: Sequence[str]) -> set[str]:
    """Return the JSON types that a field may have; "anything" where the schema does not say."""
    found = _alternatives(schema, schema, 0)
    for name in path:
        found = [
            part
            for one in found
            for part in _alternatives(_property(one, name), schema, 0)
            if one.get("type") in (None, "object")
        ]
    types: set[str] = set()
    for one in found:
        given = one.get("type", "anything")
        types |= set(given) if isinstance(given, list) else {str(given)}
    return types or {"anything"}


def _property(schema: dict[str, Any], name: str) -> Any:
    properties = schema.get("properties")
    if isinstance(properties, dict) and name in properties:
        return properties[name]
    return schema.get("additionalProperties", True)


def _alternatives(schema: Any, root: Any, depth: int) -> list[dict[str, Any]]:
    """Return the schemas that a value may match one of, with references resolved."""
    if not isinstance(schema, dict) or depth > _REFERENCES_MAX:
        return [{}]
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = root
        for part in reference.removeprefix("#/").split("/"):
            target = target.get(part) if isinstance(target, dict) else None
        return _alternatives(target, root, depth + 1)
    for keyword in _ALTERNATIVES:
        if isinstance(schema.get(keyword), list):
            return [one for part in schema[keyword] for one in _alternatives(part, root, depth + 1)]
    if "type" not in schema and ("const" in schema or "enum" in schema):
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return [{"type": "string"}] if any(isinstance(value, str) for value in values) else [{}]
    return [schema]
