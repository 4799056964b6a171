"""Pure: one handler for `runner handlers show`: its inputs as a table, and a command that runs it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from runner.cli import tables
from runner.cli.formatting import format_duration, one_line

#: Schemas refer to others by a path below this.
_REFERENCE = "#/$defs/"
#: Keywords of a schema that bound a value, as they are shown.
_BOUNDS = (
    ("minimum", ">= {}"),
    ("exclusiveMinimum", "> {}"),
    ("maximum", "<= {}"),
    ("exclusiveMaximum", "< {}"),
    ("minLength", "{} or more characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "{} or more items"),
    ("maxItems", "at most {} items"),
    ("pattern", "matches {}"),
)
#: Values of the example command for required inputs without an example of their own.
_EXAMPLES: Mapping[str, Any] = {
    "string": "TEXT",
    "integer": 1,
    "number": 1.0,
    "boolean": True,
    "array": [],
    "object": {},
}


class InputField(NamedTuple):
    """One input of a handler, as it is shown."""

    name: str
    type: str
    is_required: bool
    default: str
    about: str
    example: Any


def input_fields(schema: Mapping[str, Any]) -> list[InputField]:
    """Return the fields of an input schema, required ones first; empty if the input is no object."""
    properties = _resolve(schema, schema).get("properties") or {}
    required = set(_resolve(schema, schema).get("required") or ())
    fields = [_field(schema, name, one, name in required) for name, one in properties.items()]
    return sorted(fields, key=lambda field: not field.is_required)


def inputs(fields: Sequence[InputField]) -> Table:
    """Return one row per input."""
    table = tables.new_table("INPUT", "TYPE", "DEFAULT", "ABOUT")
    for field in fields:
        default = "required" if field.is_required else field.default
        table.add_row(
            one_line(field.name), one_line(field.type), one_line(default, 24), one_line(field.about)
        )
    return table


def summary(document: Mapping[str, Any]) -> Table:
    """Return the name, state, description, needs and timeouts of a handler, a line per field."""
    table = tables.new_field_table()
    options = document.get("options") or {}
    table.add_row("handler", one_line(document["name"]))
    table.add_row("state", one_line(document["state"]))
    if document.get("description"):
        table.add_row("about", one_line(document["description"]))
    if document.get("source"):
        table.add_row("source", one_line(document["source"]))
    if options:
        table.add_row("needs", tables.needs(options, document.get("learned") or []))
        table.add_row("queue", f"{one_line(options['queue'])}, priority {options['priority']}")
        table.add_row("timeout", format_duration(options.get("timeout_s")))
        table.add_row("retries", str(options.get("retries")))
    return table


def example_arguments(document: Mapping[str, Any]) -> str:
    """Return the arguments of `runner` that run the handler with an example of every required input."""
    schema = document.get("input_schema") or {}
    words = ["run", str(document["name"])]
    for field in input_fields(schema):
        if field.is_required:
            is_text = isinstance(field.example, str)
            value = field.example if is_text else json.dumps(field.example, ensure_ascii=False)
            words.append(f"{field.name}{'=' if is_text else ':='}{value}")
    return one_line(shlex.join(words))


def _field(root: Mapping[str, Any], name: str, schema: Any, is_required: bool) -> InputField:
    found = _resolve(root, schema)
    merged = {**found, **(schema if isinstance(schema, Mapping) else {})}
    default = json.dumps(merged["default"], ensure_ascii=False) if "default" in merged else "none"
    about = "; ".join(filter(None, [str(merged.get("description") or ""), *_bounds(found)]))
    return InputField(name, _type(root, found), is_required, default, about, _example(found))


def _resolve(root: Mapping[str, Any], schema: Any) -> Mapping[str, Any]:
    """Return the schema that a `$ref` names, or the schema itself; `{}` for what is not a schema."""
    if not isinstance(schema, Mapping):
        return {}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith(_REFERENCE):
        named = (root.get("$defs") or {}).get(reference.removeprefix(_REFERENCE))
        return named if isinstance(named, Mapping) else {}
    return schema


def _type(root: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return a schema's type in a few words: `integer`, `text or null`, `list of number`."""
    if "enum" in schema:
        return " | ".join(json.dumps(one, ensure_ascii=False) for one in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(_type(root, _resolve(root, one)) for one in choices))
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return " or ".join(map(str, kinds))
    if kinds == "array":
        return f"list of {_type(root, _resolve(root, schema.get('items')))}"
    return str(kinds or "any")


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    for keyword, text in _BOUNDS:
        if keyword in schema:
            yield text.format(schema[keyword])


def _example(schema: Mapping[str, Any]) -> Any:
    """Return a value for the example command: the schema's own, else one of its type within its minimum."""
    for keyword in ("examples", "enum"):
        if schema.get(keyword):
            return schema[keyword][0]
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices and isinstance(choices[0], Mapping):
        return _example(choices[0])
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind in ("integer", "number") and "minimum" in schema:
        return schema["minimum"]
    return _EXAMPLES.get(str(kind), "TEXT")
