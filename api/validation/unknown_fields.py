"""Pure: fields of an input that its schema neither has nor forbids: a model ignores them silently."""

from __future__ import annotations

import difflib
from typing import Any

#: Largest number of warnings for one input.
WARNINGS_MAX = 10
#: Values of one input that are looked at.
_VALUES_MAX = 1000
#: Items of one list that are looked at.
_ITEMS_MAX = 100
_NAME_CHARS_MAX = 100
_Level = dict[str, Any]


class UnknownFields:
    """The models of a schema and their fields. A schema that takes other fields by itself is left out."""

    def __init__(self, schema: Any) -> None:
        self._root = schema
        #: False for most schemas without models: their inputs cost nothing.
        self._has_models = isinstance(schema, dict) and ("properties" in schema or "$defs" in schema)

    def find(self, value: Any) -> list[str]:
        """Return a warning for each unknown field of a valid input, at most WARNINGS_MAX."""
        if not self._has_models:
            return []
        found: list[str] = []
        stack: list[tuple[str, Any, Any]] = [("input", self._root, value)]
        for _ in range(_VALUES_MAX):
            if not stack or len(found) >= WARNINGS_MAX:
                break
            at, schema, item = stack.pop()
            schema = self._resolve(schema, item)
            if isinstance(item, dict) and schema is not None:
                fields = schema.get("properties")
                if isinstance(fields, dict):
                    self._look_at_model(at, schema, fields, item, found, stack)
            elif isinstance(item, list) and schema is not None and isinstance(schema.get("items"), dict):
                for index, inner in enumerate(item[:_ITEMS_MAX]):
                    if not isinstance(inner, dict | list):
                        break
                    stack.append((f"{at}.{index}", schema["items"], inner))
        return found[:WARNINGS_MAX]

    def _look_at_model(
        self,
        at: str,
        schema: _Level,
        fields: _Level,
        item: dict[str, Any],
        found: list[str],
        stack: list[tuple[str, Any, Any]],
    ) -> None:
        unknown = item.keys() - fields.keys()
        if unknown and "additionalProperties" not in schema and "patternProperties" not in schema:
            found.extend(
                _warning(at, name, list(fields)) for name in sorted(unknown)[: WARNINGS_MAX - len(found)]
            )
        for name, inner in item.items():
            if isinstance(inner, dict | list) and name in fields:
                stack.append((f"{at}.{name[:_NAME_CHARS_MAX]}", fields[name], inner))

    def _resolve(self, schema: Any, item: Any) -> _Level | None:
        """Return the schema behind references and optional values; None if it has alternatives."""
        for _ in range(10):
            if not isinstance(schema, dict):
                return None
            reference, alternatives = schema.get("$ref"), schema.get("anyOf")
            if isinstance(reference, str) and reference.startswith("#/$defs/"):
                schema = self._root.get("$defs", {}).get(reference.removeprefix("#/$defs/"))
            elif isinstance(alternatives, list):
                kept = [one for one in alternatives if one != {"type": "null"}]
                schema = kept[0] if len(kept) == 1 else None
            elif "oneOf" in schema or "allOf" in schema:
                return None
            else:
                return schema
        return None


def _warning(at: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name[:_NAME_CHARS_MAX], known, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{at}.{name[:_NAME_CHARS_MAX]} is not a field of the handler's input and is ignored{hint}"
