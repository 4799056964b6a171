"""Effect: turns `key=value`, `key:=json`, `@file.json` and `-` into a job's input."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runner.errors import BadRequest


class CommandUsageError(BadRequest):
    """The command line is invalid."""

    exit_code = 2


def job_input(arguments: Sequence[str], read_stdin: Callable[[], str]) -> Any:
    """Return the input that the arguments describe; `{}` for none.

    `key=value` sets text, `key:=json` any JSON value; dots in a key select nested fields (`model.name=tiny`).
    `@file` or `-` (standard input) gives the whole input as JSON; keys after it change that one.
    """
    value: Any = None
    for argument in arguments:
        if argument == "-" or argument.startswith("@"):
            if value is not None:
                raise CommandUsageError(f"{argument}: the whole input comes first, and only once")
            value = _read_document(argument, read_stdin)
        else:
            value = {} if value is None else value
            _set_value(value, argument)
    return {} if value is None else value


def metadata(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Return the same arguments as one object; None for none."""
    return job_input(arguments, lambda: "{}") if arguments else None


def _read_document(argument: str, read_stdin: Callable[[], str]) -> Any:
    origin = "standard input" if argument == "-" else argument[1:]
    try:
        text = read_stdin() if argument == "-" else Path(argument[1:]).expanduser().read_text("utf-8")
    except OSError as error:
        raise CommandUsageError(f"cannot read {origin}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandUsageError(f"{origin} is not UTF-8 text") from None
    return _json(text, origin)


def _set_value(value: Any, argument: str) -> None:
    key, found, text = argument.partition("=")
    if not found or not key or key == ":":
        raise CommandUsageError(
            f"{argument!r} is no input: write key=value, key:=json, @file.json or - for standard input"
        )
    if not isinstance(value, dict):
        raise CommandUsageError(f"{argument!r}: the input so far is not an object, so it has no keys")
    *outer, last = key.removesuffix(":").split(".")
    for name in outer:
        value = value.setdefault(name, {})
        if not isinstance(value, dict):
            raise CommandUsageError(f"{argument!r}: {name} already has a value that is not an object")
    value[last] = _json(text, f"{key}=") if key.endswith(":") else text


def _json(text: str, origin: str) -> Any:
    def refuse(name: str) -> None:
        raise CommandUsageError(f"{origin}: {name} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise CommandUsageError(
            f"{origin}: not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
