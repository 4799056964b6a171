"""Effect: what commands share: common options, opening the client, JSON on stdout."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from runner.client import Client

Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="URL of the server.  [default: RUNNER_URL, else http://127.0.0.1:8484]"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
JobId = Annotated[
    str,
    typer.Argument(metavar="ID", help="The job's id, a unique prefix of it, or @last.", show_default=False),
]

#: Columns of a table written to a file or a pipe: nothing is cut there.
PIPE_WIDTH = 240


def open_client(url: str | None) -> Client:
    """Return a client of the server that the command addresses: `url`, else RUNNER_URL, else this machine.

    Opening sends nothing. Raises CommandUsageError if the URL is invalid.
    """
    from runner.cli.arguments import CommandUsageError
    from runner.client import Client
    from runner.errors import BadRequest

    try:
        return Client(url)
    except BadRequest as error:
        # No server has refused anything: the address itself is invalid.
        raise CommandUsageError(error.message) from None


def print_json(value: Any, *, compact: bool = False) -> None:
    """Write one JSON value to stdout: indented, or on one line if `compact`.

    Characters that the terminal's encoding lacks, or that a terminal interprets, are written as JSON escapes.
    """
    from runner.cli.formatting import format_json
    from runner.formats.printable import printable_json

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")) if compact else format_json(value)
    # JSON in UTF-8 has no lone surrogates, but a terminal of another encoding may lack letters.
    encoding = sys.stdout.encoding or "utf-8"
    print(printable_json(text).encode(encoding, "backslashreplace").decode(encoding), flush=compact)


def open_console() -> Console:
    """Return the console for tables.

    As wide as the terminal; `PIPE_WIDTH` columns for a file or a pipe, where nothing needs to be cut.
    """
    from rich.console import Console

    return Console(
        width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, emoji=False, markup=False
    )
