"""Effect: parses `key=text`, `key:=json`, `@file.json` and `-` into a job's input."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runner.cli import coercion
from runner.errors import BadRequest


class CommandUsageError(BadRequest):
    """The command line is invalid; the command exits with code 2."""

    exit_code = 2


def job_input(
    arguments: Sequence[str], read_stdin: Callable[[], str], read_schema: Callable[[], Any] | None = None
) -> Any:
    """Return the input that the arguments describe; `{}` without arguments.

    `key=text` sets text, `key:=JSON` any JSON value; dots in a key select nested fields (`model.name=tiny`).
    `read_schema` returns the JSON Schema of the input, by which the text of `key=text` becomes a number or a
    boolean; it is called at most once, and only if such a text is given.
    `@file` or `-` (standard input) gives the whole input as JSON; keys after it set fields of that object.

    Raises:
        CommandUsageError: an argument can't be parsed, a file can't be read, or a key names a field of a
            value that is not an object.
    """
    value: Any = None
    schema = _SchemaReader(read_schema)
    for argument in arguments:
        if argument == "-" or argument.startswith("@"):
            if value is not None:
                raise CommandUsageError(f"{argument}: a whole input must come first and only once")
            value = _read_document(argument, read_stdin)
        else:
            value = {} if value is None else value
            _set_value(value, argument, schema)
    return {} if value is None else value


def metadata(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Return the arguments of `--metadata` as one object; None if there are none.

    Raises CommandUsageError as `job_input`.
    """
    return job_input(arguments, lambda: "{}") if arguments else None


def _read_document(argument: str, read_stdin: Callable[[], str]) -> Any:
    """Return the JSON value of a file or of standard input."""
    origin = "standard input" if argument == "-" else argument[1:]
    try:
        text = read_stdin() if argument == "-" else Path(argument[1:]).expanduser().read_text("utf-8")
    except OSError as error:
        raise CommandUsageError(f"cannot read {origin}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandUsageError(f"{origin} is not UTF-8 text") from None
    return _json(text, origin)


class _SchemaReader:
    """The schema of the input, read when a text needs it."""

    def __init__(self, read: Callable[[], Any] | None) -> None:
        self._read = read
        self._schema: Any = True

    def coerce(self, text: str, path: Sequence[str]) -> Any:
        """Return the value of a field that was given as text."""
        if not coercion.may_be_coerced(text):
            return text
        if self._read is not None:
            self._schema, self._read = self._read(), None
        return coercion.coerce(text, path, self._schema)


def _set_value(value: Any, argument: str, schema: _SchemaReader) -> None:
    """Set one field of `value` in place, creating objects on the way to it."""
    key, found, text = argument.partition("=")
    if not found or not key or key == ":":
        raise CommandUsageError(
            f"cannot parse {argument!r}: expected key=text, key:=JSON, @file.json or - (standard input)"
        )
    if not isinstance(value, dict):
        raise CommandUsageError(f"cannot set {argument!r}: the input is not an object")
    *outer, last = key.removesuffix(":").split(".")
    for name in outer:
        value = value.setdefault(name, {})
        if not isinstance(value, dict):
            raise CommandUsageError(f"cannot set {argument!r}: the value of {name} is not an object")
    if key.endswith(":"):
        value[last] = _json(text, f"{key}=")
    else:
        value[last] = schema.coerce(text, [*outer, last])


def _json(text: str, origin: str) -> Any:
    """Parse JSON as the server does: NaN and Infinity are refused. `origin` names the text in errors."""

    def refuse(name: str) -> None:
        raise CommandUsageError(f"{origin}: {name} is not valid JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise CommandUsageError(
            f"{origin}: not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
