"""Effect: lists the files of a job, and fetches them with their progress on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli.formatting import format_size, one_line

if TYPE_CHECKING:
    from runner.client import Client
    from runner.client.downloads import OnBytes

OutputFolder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Folder to write the job's files to."),
]


def fetch_files(client: Client, job_id: str, folder: Path) -> None:
    """Write all files of a job to a folder, and print on stderr where each was saved.

    Raises CommandUsageError if the folder can't be written.
    """
    from runner.cli.arguments import CommandUsageError

    try:
        with _show_bytes() as on_bytes:
            paths = client.download(job_id, folder, on_bytes=on_bytes)
    except OSError as error:
        raise CommandUsageError(f"cannot write to {folder}: {error.strerror or error}") from None
    for path in paths:
        print(f"saved {one_line(path)} ({format_size(path.stat().st_size)})", file=sys.stderr)
    if not paths:
        print("the job has saved no files", file=sys.stderr)


def print_files(references: list[dict[str, Any]]) -> None:
    """Print name, size and content type of each file."""
    for one in references:
        print(f"{one_line(one['name'])}  {format_size(one['size'])}  {one_line(one['content_type'])}")
    if not references:
        print("the job has saved no files", file=sys.stderr)


@contextmanager
def _show_bytes() -> Iterator[OnBytes | None]:
    """Yield a function that shows on a terminal how much of a file has arrived; None without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

    console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), DownloadColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True) as bars:

        def show(reference: dict[str, Any], count: int) -> None:
            file_id = str(reference["id"])
            if file_id not in tasks:
                tasks[file_id] = bars.add_task(one_line(reference["name"], 30), total=reference["size"])
            bars.update(tasks[file_id], completed=count)

        yield show
