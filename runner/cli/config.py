"""Effect: `runner config show`: the effective settings with their origins."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli.common_options import AsJson, open_console, print_json
from runner.cli.serve_flags import settings_fields, with_serve_flags

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from runner.settings.origins import SettingValue

config = typer.Typer(no_args_is_help=True, help="Show the settings.", rich_markup_mode=None)

Origin = Annotated[bool, typer.Option("--origin", help="Also show where each value comes from.")]


@config.command()
@with_serve_flags()
def show(origin: Origin = False, as_json: AsJson = False, **flags: Any) -> None:
    """Show every setting that `runner serve` would use.

    Takes the flags of `runner serve`. Secrets are shown as asterisks.
    """
    from runner.settings.origins import list_settings
    from runner.settings.settings import merge_layers, read_layers

    layers = read_layers(settings_fields(flags))
    found = list_settings(merge_layers(layers), layers, os.environ)
    if as_json:
        return print_json(
            {one.name: {"value": one.value, "origin": one.origin} if origin else one.value for one in found}
        )
    open_console().print(_table(found, layers.file, with_origin=origin))
    return None


def _table(found: list[SettingValue], file: Path | None, *, with_origin: bool) -> Table:
    """Return the table of settings: name, value and, if asked for, origin."""
    from rich.table import Table

    from runner.cli.formatting import one_line

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("SETTING", "VALUE", "FROM") if with_origin else ("SETTING", "VALUE"):
        table.add_column(name, overflow="fold", no_wrap=name == "SETTING")
    for one in found:
        # The setting `config` shows the file's folder, so once is enough.
        origin = one.origin.replace(str(file), file.name) if file is not None else one.origin
        row = (one.name, one_line(format_value(one.name, one.value)), one_line(origin))
        table.add_row(*row[: 3 if with_origin else 2])
    return table


def format_value(name: str, value: Any) -> str:
    """Return the text of a setting as the config file would have it, with units for quantities.

    `value` is a JSON value. Durations become `30s` or `5m`, sizes `16MiB`; lists and tables become JSON.
    """
    match value:
        case None:
            return "-"
        case list() | dict() if not value:
            return "-"
        case bool():
            return str(value).lower()
        case int() if name.endswith("_bytes"):
            return _exact_bytes(value)
        case float() if name == "grace":
            return f"{value:g}s"
        case list() if all(isinstance(one, str) for one in value):
            return ", ".join(value)
        case list() | dict():
            return json.dumps(value, ensure_ascii=False)
    return str(value)


def _exact_bytes(count: int) -> str:
    """Return a size as a config file has it: exact, in the largest binary unit that divides it."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count and count % scale == 0:
            return f"{count // scale}{unit}"
    return str(count)
