"""Effect: turns `key=value`, `key:=json`, `@file.json` and `-` into a job's input."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runner.errors import BadRequest


class Usage(BadRequest):
    """The command cannot be meant as it was typed."""

    exit_code = 2


def job_input(words: Sequence[str], read_stdin: Callable[[], str]) -> Any:
    """The input that the words spell; `{}` for none.

    `key=value` gives text, `key:=json` any JSON value, dots in a key reach inside (`model.name=tiny`).
    `@file` or `-` (standard input) gives the whole input as JSON; keys after it change that one.
    """
    value: Any = None
    for word in words:
        if word == "-" or word.startswith("@"):
            if value is not None:
                raise Usage(f"{word}: the whole input comes first, and only once")
            value = _document(word, read_stdin)
        else:
            value = {} if value is None else value
            _put(value, word)
    return {} if value is None else value


def metadata(words: Sequence[str]) -> dict[str, Any] | None:
    """The same words as one object; None for none."""
    return job_input(words, lambda: "{}") if words else None


def _document(word: str, read_stdin: Callable[[], str]) -> Any:
    where = "standard input" if word == "-" else word[1:]
    try:
        text = read_stdin() if word == "-" else Path(word[1:]).expanduser().read_text("utf-8")
    except OSError as error:
        raise Usage(f"cannot read {where}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Usage(f"{where} is not UTF-8 text") from None
    return _json(text, where)


def _put(value: Any, word: str) -> None:
    key, found, text = word.partition("=")
    if not found or not key or key == ":":
        raise Usage(f"{word!r} is no input: write key=value, key:=json, @file.json or - for standard input")
    if not isinstance(value, dict):
        raise Usage(f"{word!r}: the input so far is not an object, so it has no keys")
    *outer, last = key.removesuffix(":").split(".")
    for name in outer:
        value = value.setdefault(name, {})
        if not isinstance(value, dict):
            raise Usage(f"{word!r}: {name} already has a value that is not an object")
    value[last] = _json(text, f"{key}=") if key.endswith(":") else text


def _json(text: str, where: str) -> Any:
    def refuse(name: str) -> None:
        raise Usage(f"{where}: {name} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise Usage(
            f"{where}: not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
