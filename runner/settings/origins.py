"""Pure: the effective settings as people write them, each with its origin: flag, variable, key or default."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr

from runner.settings.settings import SHORT_NAMES, SHOWN_NAMES, TOKENS, SettingLayers, Settings

STARS = "********"
DEFAULT = "default"
_FLAGS = {"grace_s": "--grace", "allow_hosts": "--allow-host", "allow_origins": "--allow-origin"}
#: Variables for handler code whose values are hidden.
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|KEY|CREDENTIAL|AUTH", re.IGNORECASE)


class SettingValue(NamedTuple):
    """One setting: its dotted name, its JSON value, and its origin as text."""

    name: str
    value: Any
    origin: str


def list_settings(settings: Settings, read: SettingLayers, environ: Mapping[str, str]) -> list[SettingValue]:
    """Return all settings in the documented order; names of nested ones have dots, secrets are asterisks.

    `read` must be the layers from which `settings` was merged; `environ` is the process's environment.
    """
    return [
        SettingValue(_name(path), _value(path, value), _origin(path, read, environ))
        for path, value in _leaves(settings)
    ]


def _leaves(settings: Settings) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in type(settings).model_fields:
        value = settings.store_url if name == "store" else getattr(settings, name)
        yield from _flatten((name,), value)


def _flatten(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
        # A table as the value of an option (a backoff) is one value.
    if isinstance(value, Mapping) and (value or path == ("overrides",)) and len(path) < 3:
        for name, inner in value.items():
            yield from _flatten((*path, name), inner)
    else:
        yield path, value


def _name(path: tuple[str, ...]) -> str:
    return ".".join((SHOWN_NAMES.get(path[0], path[0]), *path[1:]))


def _value(path: tuple[str, ...], value: Any) -> Any:
    is_secret = path[:2] == ("executors", "env") and len(path) == 3 and _SECRET.search(path[2])
    if is_secret or isinstance(value, SecretStr):
        return STARS
    return str(value) if isinstance(value, Path) else value


def _origin(path: tuple[str, ...], read: SettingLayers, environ: Mapping[str, str]) -> str:
    if path == ("config",) and read.file is not None and not (read.flags | read.environment).get("config"):
        return "found in the current folder"
    layers: tuple[dict[str, Any], ...] = (read.flags, read.environment, read.table)
    if path[0] in TOKENS:
        # Other layers do not count, not even for the form that this one does not use.
        layers = tuple(layer if layer is read.token_layer else {} for layer in layers)
        if path[0] == "token" and not read.token_layer.get("token"):
            path = ("token_file",)
    flags, environment, table = layers
    if _is_set(path, flags):
        return _flag(path[0], flags[path[0]])
    if _is_set(path, environment):
        return _variable(path, environ)
    return f"{read.file}: {_key(path, read)}" if _is_set(path, table) else DEFAULT


def _is_set(path: tuple[str, ...], layer: Any) -> bool:
    for name in path:
        if not isinstance(layer, Mapping):
            # A table given as one text, such as JSON in a variable.
            return True
        if name not in layer:
            return False
        layer = layer[name]
    return True


def _flag(name: str, value: Any) -> str:
    if value is False:
        return f"--no-{name.replace('_', '-')}"
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


def _variable(path: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """Return the variable as it is spelled in the environment; the most specific one first."""
    spelled = {name.upper(): name for name in environ}
    firsts = [path[0], *(short for short, field in SHORT_NAMES.items() if field == path[0])]
    firsts += [SHOWN_NAMES[path[0]]] if path[0] in SHOWN_NAMES else []
    for length in range(len(path), 0, -1):
        for first in firsts:
            name = "__".join(("RUNNER_" + first, *path[1:length])).upper()
            if name in spelled:
                return spelled[name]
    return "the environment"


def _key(path: tuple[str, ...], read: SettingLayers) -> str:
    prefix = "tool.runner." if read.file is not None and read.file.name == "pyproject.toml" else ""
    return prefix + read.written_as.get(path[0], path[0]) + "".join(f".{name}" for name in path[1:])
