"""Effect: `runner init`: writes the files of a new project; existing files are never overwritten."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from runner.cli.arguments import CommandUsageError

Folder = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", help="The project's folder; created if missing.", show_default=False),
]


def init(folder: Folder = Path(".")) -> None:
    """Create a project with a handler, a runner.toml and a test."""
    from runner.cli.project_template import FILES

    existing = [name for name in FILES if os.path.lexists(folder / name)]
    if existing:
        raise CommandUsageError(
            f"{', '.join(existing)} already exists in {folder.absolute()}; runner init never overwrites files"
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
    print("  pip install pytest && pytest                           # if pytest is not installed yet")
