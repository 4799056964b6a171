"""Pure: the flags of `runner serve`, shared with commands about the server that they would start."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from runner.cli.serve import serve

Command = TypeVar("Command", bound=Callable[..., Any])

#: Flags whose names differ from the fields of the settings.
FLAG_FIELDS = {"grace": "grace_s", "allow_host": "allow_hosts", "allow_origin": "allow_origins"}


def with_serve_flags(*only: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the flags of `runner serve` (or `only` these) to a command's `**flags`.

    typer reads the flags from the command's signature, so the signature is replaced; the function is not.
    """

    def change(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        theirs = inspect.signature(serve, eval_str=True).parameters.values()
        parameters = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
        parameters += [one for one in theirs if not only or one.name in only]
        command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        return command

    return change


def settings_fields(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that were given, by field of the settings; the others keep their configured values."""
    return {FLAG_FIELDS.get(name, name): value for name, value in flags.items() if value not in (None, [])}
