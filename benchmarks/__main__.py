"""Effect: one benchmark run: the groups of figures that were asked for, a table, a JSON file."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks import machine, report
from benchmarks.figure import Figures
from benchmarks.groups import GROUPS
from benchmarks.sizes import Sizes


def main() -> int:
    """Exit code 0; with `--check` 1 when a target is missed."""
    options = _parser().parse_args()
    sizes = Sizes(bulk=options.jobs, many=options.scale)
    console = Console()
    figures = Figures()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="runner-bench-", dir=options.folder) as name:
        folder = Path(name)
        described = machine.describe(folder)
        for group, measure in GROUPS.items():
            if group in options.only:
                console.print(f"{group} ({time.monotonic() - started:.0f} s)")
                here = folder / group
                here.mkdir()
                measure(here, sizes, figures, options.rounds)
    all_ok = report.show(console, figures, described)
    spent = time.monotonic() - started
    console.print(f"written to {report.write(options.out, figures, described)} after {spent:.0f} s")
    return 1 if options.check and not all_ok else 0


def _groups(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in GROUPS:
            raise argparse.ArgumentTypeError(f"there is no group {name!r}; there are {', '.join(GROUPS)}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", type=_groups, default=list(GROUPS), help=f"groups, with commas: {', '.join(GROUPS)}"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of line, accept and stream")
    parser.add_argument(
        "--jobs", type=int, default=Sizes().bulk, help="no-op jobs of a bulk round, a multiple of 1,000"
    )
    parser.add_argument(
        "--scale", type=int, default=Sizes().many, help="jobs that wait in the scale group, at least 10,000"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument(
        "--folder", type=Path, help="where databases are made; the system's for temporary files"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
