"""Effect: `runner init`: writes the files of a new project and overwrites none."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from runner.cli.arguments import CommandUsageError

Folder = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", help="Where to; it is made if it is not there.", show_default=False),
]


def init(folder: Folder = Path(".")) -> None:
    """Write a handler, a runner.toml and a test to begin with."""
    from runner.cli.project_template import FILES

    existing = [name for name in FILES if os.path.lexists(folder / name)]
    if existing:
        raise CommandUsageError(
            f"{', '.join(existing)} in {folder.absolute()}: there already; runner init overwrites nothing"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in FILES.items():
            # "x": a file created in the meantime is not overwritten.
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise CommandUsageError(f"cannot write to {folder.absolute()}: {error.strerror}") from None
    for name in FILES:
        print(f"wrote {folder / name}")
    print("\nNow:")
    if folder.absolute() != Path.cwd():
        print(f"  cd {shlex.quote(str(folder))}")
    print("  runner serve")
    print('  runner run count-words text="to be or not to be"    # in another terminal')
    print("  pytest")
