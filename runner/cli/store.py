"""Effect: `runner store check`: looks for damage in the file of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from runner.cli.common_options import AsJson, open_console, print_json
from runner.cli.serve_flags import settings_fields, with_serve_flags

if TYPE_CHECKING:
    from runner.stores.sqlite.store_check import StoreCheck

store = typer.Typer(no_args_is_help=True, help="Check the store.", rich_markup_mode=None)


@store.command()
@with_serve_flags("data_dir", "store", "config")
def check(as_json: AsJson = False, **flags: Any) -> None:
    """Check the file of the store and every row in it; nothing is changed.

    A server may be running. Exit code: 0 no damage, 1 damage.
    """
    from runner.settings.settings import merge_layers, read_layers
    from runner.stores.sqlite.store_check import check_store

    settings = merge_layers(read_layers(settings_fields(flags)))
    path = _store_path(settings.store, settings.data_dir)
    found = check_store(path)
    if as_json:
        print_json(
            {
                "path": path,
                "integrity": found.integrity,
                "damaged": [
                    {"id": row.id, "number": row.number, "reason": row.reason} for row in found.damaged
                ],
            }
        )
    else:
        _print_findings(path, found)
    raise typer.Exit(1 if found.integrity or found.damaged else 0)


def _store_path(url: str | None, data_dir: Any) -> str:
    """Return the file of the store. Raises CommandUsageError if there is none."""
    from pathlib import Path

    from runner.cli.arguments import CommandUsageError
    from runner.stores.url import sqlite_path

    path = str(data_dir / "runner.db") if url is None else sqlite_path(url)
    if path is None:
        raise CommandUsageError("a store in memory has no file to check")
    if not Path(path).is_file():
        raise CommandUsageError(f"there is no store at {path}; name its folder with --data-dir")
    return path


def _print_findings(path: str, found: StoreCheck) -> None:
    from rich.table import Table

    from runner.cli.formatting import one_line

    if not found.integrity and not found.damaged:
        print(f"{path}: no damage")
        return
    for line in found.integrity:
        print(f"damaged file: {one_line(line)}")
    if found.damaged:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("ID", "NUMBER", "DAMAGE"):
            table.add_column(name, overflow="fold", no_wrap=name != "DAMAGE")
        for row in found.damaged:
            table.add_row(one_line(row.id), str(row.number), one_line(row.reason))
        open_console().print(table)
