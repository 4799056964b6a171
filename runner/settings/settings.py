"""Effect: reads the server's settings, flag > `RUNNER_*` > config file > default, and refuses invalid ones.

Nested settings are written with `__` in the environment (`RUNNER_LIMITS__BODY_BYTES=32MiB`) and as tables in
the file: the one named by `--config`, else `runner.toml`, else `[tool.runner]` of `pyproject.toml`, both in
the current folder. Paths in a file are relative to its folder. In a file `handlers` is either the list of
sources or, as `[handlers.NAME]` tables, overrides of handlers' options; the list is then `sources`.
"""

from __future__ import annotations

import ipaddress
import os
import platform
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from runner.errors import RefusedStart
from runner.formats.names import NAME_PATTERN
from runner.handlers.overrides import Overrides
from runner.settings import variables
from runner.settings.sections import (
    AbsolutePath,
    DeviceSettings,
    ExecutorSettings,
    LimitSettings,
    Names,
    Seconds,
    TenantSettings,
)

#: Names of flags that are accepted as keys too -> fields.
SHORT_NAMES = {
    "grace": "grace_s",
    "allow_host": "allow_hosts",
    "allow_origin": "allow_origins",
    "sources": "handlers",
}

#: Fields that users know by another name -> that name.
SHOWN_NAMES = {"grace_s": "grace", "handlers": "sources", "overrides": "handlers"}

#: The two ways to set a token.
TOKENS = ("token", "token_file")


class Settings(BaseSettings):
    """All settings of `runner serve`; only `load_settings` reads the environment and the config file."""

    model_config = SettingsConfigDict(
        env_prefix="RUNNER_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    #: "all", "none", indices or uuids separated by commas, or simulated devices such as "sim:2x24GiB".
    gpus: str = "all"
    #: Sources of handlers: `module[:name]`, a .py file or a folder.
    handlers: Names = []
    #: Handler name -> option -> value; overrides the options in the handler's code.
    overrides: dict[str, dict[str, Any]] = {}
    #: Also use handlers of installed packages (entry points of group `runner.handlers`).
    entry_points: bool = True
    #: For development: reload handlers when their files change.
    reload: bool = False
    host: str = "127.0.0.1"
    #: 0: any free port.
    port: int = Field(default=8484, ge=0, le=65535)
    #: Unix socket on which the server listens too.
    uds: AbsolutePath | None = None
    #: Number of HTTP processes.
    fronts: int = Field(default=1, ge=1, le=64)
    #: `sqlite:///PATH` or `memory:`. None: `runner.db` in the data folder.
    store: str | None = Field(default=None, pattern=r"^(sqlite:///.+|memory:)$")
    data_dir: AbsolutePath = Field(default=Path("~/.local/share/runner"), validate_default=True)
    #: The config file that was read, if any.
    config: AbsolutePath | None = None
    #: How long running jobs may continue after the first SIGTERM or Ctrl-C, in seconds.
    grace_s: Seconds = 30.0
    #: Names accepted in the Host header besides loopback.
    allow_hosts: Names = []
    #: Origins of web pages that may call the API (CORS).
    allow_origins: Names = []
    #: File with the token, or the token itself; the other one is None.
    token_file: AbsolutePath | None = None
    token: SecretStr | None = None
    #: "auto" is "human" on a terminal and "json" elsewhere.
    log_format: Literal["auto", "json", "human"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    limits: LimitSettings = LimitSettings()
    executors: ExecutorSettings = ExecutorSettings()
    devices: DeviceSettings = DeviceSettings()
    tenants: dict[Annotated[str, Field(pattern=NAME_PATTERN)], TenantSettings] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only the constructor's arguments: `load_settings` has merged the layers already."""
        return (init_settings,)

    @property
    def store_url(self) -> str:
        """Return the URL of the store, with the default filled in."""
        return self.store or f"sqlite:///{self.data_dir / 'runner.db'}"

    @property
    def exposure(self) -> str:
        """Return a description of who can reach the server, for the banner."""
        where = "this machine only" if is_loopback(self.host) else "other machines too"
        return f"{where}, {'token needed' if self.token else 'no token'}"


class SettingLayers(NamedTuple):
    """The values by origin, highest precedence first; `merge_layers` combines them."""

    #: Values of the flags and of `RUNNER_*` variables, by field.
    flags: dict[str, Any]
    environment: dict[str, Any]
    #: The config file, if there is one, and its values by field.
    file: Path | None
    table: dict[str, Any]
    #: Fields that the file has under another name -> that name.
    written_as: dict[str, str]

    @property
    def token_layer(self) -> dict[str, Any]:
        """Return the highest layer that sets a token.

        Within one layer the token itself beats the token file.
        """
        layers = (self.flags, self.environment, self.table)
        return next((layer for layer in layers if any(layer.get(name) for name in TOKENS)), {})


def load_settings(flags: Mapping[str, Any] | None = None, *, folder: Path | None = None) -> Settings:
    """Return the effective settings: `flags` (None: not given) over environment, file and defaults.

    `folder` is where the config file is searched; None: the current folder.

    Raises:
        RefusedStart: one sentence that names the invalid setting and its origin. Also for a server that
            would be open to other machines without a token, and on an unsupported platform.
    """
    require_platform(sys.platform, platform.machine())
    return merge_layers(read_layers(flags, folder=folder))


def read_layers(flags: Mapping[str, Any] | None = None, *, folder: Path | None = None) -> SettingLayers:
    """Return the values of the flags, the environment and the config file.

    Raises RefusedStart if the file can't be read or parsed, or has unknown settings.
    """
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    environment = _read_environment()
    chosen = given.get("config") or environment.get("config")
    return SettingLayers(
        given, environment, *_read_file(Path(chosen) if chosen else None, folder or Path.cwd())
    )


def merge_layers(read: SettingLayers) -> Settings:
    """Return the merged and validated settings. Raises RefusedStart as `load_settings`."""
    layers = {"the command line": read.flags, "the environment": read.environment, str(read.file): read.table}
    merged: dict[str, Any] = {}
    for layer in reversed(layers.values()):
        merged = _merge(layer, merged)
    for name in TOKENS:
        merged[name] = read.token_layer.get(name)
    if not merged["token"] and merged["token_file"]:
        merged["token"] = _read_token(Path(merged["token_file"]).expanduser())
    merged["config"] = read.file
    for name, layer in layers.items():
        _check_overrides(layer, name)
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        raise RefusedStart(_error_sentence(error, layers)) from None
    refuse_open_bind(settings)
    return settings


def reload_overrides(settings: Settings) -> dict[str, Any]:
    """Return the current `[handlers.NAME]` tables: the environment's over those of the config file.

    Raises RefusedStart as `load_settings`.
    """
    if settings.config is None:
        return dict(settings.overrides)
    read = read_layers({"config": settings.config})
    merged: dict[str, Any] = {}
    for name, layer in ((str(read.file), read.table), ("the environment", read.environment)):
        _check_overrides(layer, name)
        merged = _merge(layer.get("overrides", {}), merged)
    return merged


def require_platform(system: str, machine: str) -> None:
    """Raise RefusedStart unless runner can pin processes to devices and kill them on this system.

    `system` as in `sys.platform`, `machine` as in `platform.machine()`.
    """
    if system == "linux" and machine in ("x86_64", "aarch64", "arm64"):
        return
    hint = "; on Windows, use WSL2" if system.startswith(("win", "cygwin")) else ""
    raise RefusedStart(f"the server needs Linux (x86-64 or arm64); this is {system} {machine}{hint}.")


def misspelt_variables() -> list[tuple[str, str]]:
    """Return (variable, what is probably meant) for `RUNNER_*` variables that have no effect on a server."""
    return variables.misspelt_variables(os.environ, [*Settings.model_fields, *SHORT_NAMES])


def refuse_open_bind(settings: Settings) -> None:
    """Raise RefusedStart for an address beyond loopback if no token is set."""
    if not is_loopback(settings.host) and settings.token is None:
        raise RefusedStart(
            f"--host {settings.host} is open to other machines: set a token by --token-file FILE "
            "or RUNNER_TOKEN, or use 127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server bound to `host` (a name or an address)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _read_environment() -> dict[str, Any]:
    overrides = variables.handler_overrides(os.environ)
    try:
        values = dict(EnvSettingsSource(Settings)())
    except SettingsError as error:
        # Do not repeat the value: it may be a misplaced secret.
        raise RefusedStart(
            f"{error} (in the environment); set the keys of a table as RUNNER_TABLE__KEY."
        ) from None
    for short, field in SHORT_NAMES.items():
        text = os.environ.get(f"RUNNER_{short.upper()}")
        if text:
            values.setdefault(field, text)
    if overrides:
        values["overrides"] = _merge(overrides, values.get("overrides", {}))
    if isinstance(values.get("handlers"), dict):
        # The same variables, read as if they were a table of this field.
        del values["handlers"]
    # Names of variables for handlers keep their case; the source above folds it.
    marker = "RUNNER_EXECUTORS__ENV__"
    executor_env = {
        name.removeprefix(marker): text for name, text in os.environ.items() if name.startswith(marker)
    }
    if executor_env:
        values["executors"] = {**values.get("executors", {}), "env": executor_env}
    return values


def _read_file(chosen: Path | None, folder: Path) -> tuple[Path | None, dict[str, Any], dict[str, str]]:
    if chosen is not None:
        path = chosen.expanduser().absolute()
        return path, *_read_table(path, required=True)
    for path in (folder / "runner.toml", folder / "pyproject.toml"):
        if path.is_file():
            table, written = _read_table(path, required=False)
            if table or path.name == "runner.toml":
                return path, table, written
    return None, {}, {}


def _read_table(path: Path, *, required: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the file's values by field, and the fields that the file names differently."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RefusedStart(f"cannot read the config file {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RefusedStart(f"{path} is not valid TOML: {error}.") from None
    if path.name == "pyproject.toml":
        table = document.get("tool", {}).get("runner")
        if table is None and required:
            raise RefusedStart(f"{path} has no [tool.runner] table.")
        document = table or {}
    written: dict[str, str] = {}
    if isinstance(document.get("handlers"), dict):
        document["overrides"] = document.pop("handlers")
        written["overrides"] = "handlers"
    for short, field in SHORT_NAMES.items():
        if short in document:
            value = document.pop(short)
            if field not in document:
                document[field], written[field] = value, short
    return _resolve_paths(document, path.parent), written


def _resolve_paths(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    for name in ("data_dir", "token_file"):
        if isinstance(table.get(name), str):
            table[name] = str(folder / Path(table[name]).expanduser())
    sources = table.get("handlers")
    if isinstance(sources, list):
        table["handlers"] = [
            str(folder / Path(source).expanduser())
            if isinstance(source, str) and ("/" in source or source.endswith(".py"))
            else source
            for source in sources
        ]
    return table


def _check_overrides(layer: Mapping[str, Any], name: str) -> None:
    """Refuse invalid tables now, while it is known where they came from."""
    tables = layer.get("overrides")
    if isinstance(tables, Mapping):
        Overrides(tables, f"in {name}" if name.startswith("the ") else name)


def _merge(upper: Mapping[str, Any], lower: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        merged[key] = _merge(value, below) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


def _read_token(path: Path) -> str:
    try:
        token = path.read_text("ascii").strip()
    except OSError as error:
        raise RefusedStart(f"cannot read the token file {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise RefusedStart(f"the token file {path} must hold plain ASCII text only.") from None
    if not token or not token.isprintable() or " " in token:
        raise RefusedStart(f"the token file {path} must hold one token: one line without spaces.")
    return token


def _error_sentence(error: ValidationError, layers: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one sentence for the first invalid setting, with its origin."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    location = [str(part) for part in first["loc"] if part != "[key]"]
    origin = next((name for name, layer in layers.items() if _contains(layer, location)), "the settings")
    name = ".".join((SHOWN_NAMES.get(location[0], location[0]), *location[1:]))
    if first["type"] == "extra_forbidden":
        return f"{name}: no such setting (in {origin})."
    if name == "store":
        return f"store: must be sqlite:///PATH or memory: (in {origin})."
    text = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    return f"{name}: {text} (in {origin})."


def _contains(layer: Any, path: list[str]) -> bool:
    if not path or not isinstance(layer, Mapping):
        return True
    return path[0] in layer and _contains(layer[path[0]], path[1:])
