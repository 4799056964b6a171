"""Effect: parses `key=value`, `key:=json`, `@file.json` and `-` into a job's input."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runner.errors import BadRequest


class CommandUsageError(BadRequest):
    """The command line is invalid; the command exits with code 2."""

    exit_code = 2


def job_input(arguments: Sequence[str], read_stdin: Callable[[], str]) -> Any:
    """Return the input that the arguments describe; `{}` without arguments.

    `key=value` sets text, `key:=json` any JSON value; dots in a key select nested fields (`model.name=tiny`).
    `@file` or `-` (standard input) gives the whole input as JSON; keys after it set fields of that object.

    Raises:
        CommandUsageError: an argument can't be parsed, a file can't be read, or a key names a field of a
            value that is not an object.
    """
    value: Any = None
    for argument in arguments:
        if argument == "-" or argument.startswith("@"):
            if value is not None:
                raise CommandUsageError(f"{argument}: a whole input must come first and only once")
            value = _read_document(argument, read_stdin)
        else:
            value = {} if value is None else value
            _set_value(value, argument)
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


def _set_value(value: Any, argument: str) -> None:
    """Set one field of `value` in place, creating objects on the way to it."""
    key, found, text = argument.partition("=")
    if not found or not key or key == ":":
        raise CommandUsageError(
            f"cannot parse {argument!r}: expected key=value, key:=json, @file.json or - (standard input)"
        )
    if not isinstance(value, dict):
        raise CommandUsageError(f"cannot set {argument!r}: the input is not an object")
    *outer, last = key.removesuffix(":").split(".")
    for name in outer:
        value = value.setdefault(name, {})
        if not isinstance(value, dict):
            raise CommandUsageError(f"cannot set {argument!r}: the value of {name} is not an object")
    value[last] = _json(text, f"{key}=") if key.endswith(":") else text


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
