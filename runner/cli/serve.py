"""Effect: `runner serve`: collects the flags, loads the settings and runs the coordinator in this process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

Handlers = Annotated[
    list[str] | None,
    typer.Option(
        "--handlers",
        metavar="SOURCE",
        help="Source of handlers: module[:name], a .py file or a folder. Repeat it for more.",
        show_default=False,
    ),
]
Gpus = Annotated[
    str | None,
    typer.Option(metavar="WHICH", help="all, none, 0,1, GPU uuids, or sim:2x24GiB.  [default: all]"),
]
Host = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address to bind.  [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(metavar="PORT", help="Port; 0 picks a free one.  [default: 8484]")]
Uds = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Also listen on this Unix socket, which only your user may open."),
]
Fronts = Annotated[int | None, typer.Option(metavar="COUNT", help="HTTP processes.  [default: 1]")]
StoreUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="sqlite:///PATH or memory:  [default: runner.db in the data folder]"),
]
DataDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder for jobs and files.  [default: ~/.local/share/runner]"),
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Config file.  [default: runner.toml, else pyproject.toml's tool.runner]"
    ),
]
Grace = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="How long running jobs may continue after Ctrl-C or SIGTERM.  [default: 30s]"
    ),
]
EntryPoints = Annotated[
    bool | None,
    typer.Option(
        "--entry-points/--no-entry-points",
        help="Whether to use handlers of installed packages.  [default: yes]",
    ),
]
Reload = Annotated[
    bool | None,
    typer.Option("--reload", help="Development: reload handlers when their files change."),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Accept this name in the Host header too. Repeat it for more."),
]
AllowOrigin = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", help="Allow requests from pages of this origin (CORS). Repeat it for more."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File with the token that clients must send; else RUNNER_TOKEN."),
]
LogFormat = Annotated[
    str | None, typer.Option(metavar="FORMAT", help="human or json.  [default: human on a terminal]")
]
LogLevel = Annotated[
    str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.  [default: info]")
]


def serve(
    handlers: Handlers = None,
    gpus: Gpus = None,
    host: Host = None,
    port: Port = None,
    uds: Uds = None,
    fronts: Fronts = None,
    store: StoreUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
    grace: Grace = None,
    entry_points: EntryPoints = None,
    reload: Reload = None,
    allow_host: AllowHost = None,
    allow_origin: AllowOrigin = None,
    token_file: TokenFile = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Start a server. Ctrl-C stops it gracefully, a second Ctrl-C at once.

    Every flag can also be set as RUNNER_NAME in the environment or in the config file.
    """
    from runner.processes.pid1 import fork_from_pid1

    fork_from_pid1()
    from runner.settings.settings import load_settings

    flags: dict[str, Any] = {
        "handlers": handlers or None,
        "gpus": gpus,
        "host": host,
        "port": port,
        "uds": uds,
        "fronts": fronts,
        "store": store,
        "data_dir": data_dir,
        "config": config,
        "grace_s": grace,
        "entry_points": entry_points,
        "reload": reload,
        "allow_hosts": allow_host or None,
        "allow_origins": allow_origin or None,
        "token_file": token_file,
        "log_format": log_format,
        "log_level": log_level,
    }
    settings = load_settings(flags)
    from runner.coordinator.main import serve as run_server

    raise typer.Exit(run_server(settings, StartPrinter()))


class StartPrinter:
    """Prints the banner, framed if stdout is a terminal that can show the frame."""

    def on_ready(self, document: dict[str, Any]) -> None:
        """Print the banner."""
        from runner.cli.startup_banner import format_banner

        terminal = sys.stdout.isatty()
        self._write(
            format_banner(document, terminal=terminal, color=terminal and "NO_COLOR" not in os.environ)
        )

    def on_described(self, document: dict[str, Any]) -> None:
        """Print the number of handlers, which the banner did not have yet."""
        from runner.cli.startup_banner import format_handlers

        self._write(format_handlers(document))

    def _write(self, text: str) -> None:
        # A terminal with an old encoding lacks the frame characters.
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
