"""Effect: one benchmark run: the groups of figures that were asked for, a table, a JSON file."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from benchmarks import machine, report
from benchmarks.figure import Figures
from benchmarks.http_client import BenchmarkFailed
from benchmarks.run_order import GROUPS, Measure
from benchmarks.scale_sizes import Sizes


def main(arguments: Sequence[str], groups: Mapping[str, Measure] = GROUPS) -> int:
    """Exit code 0; 1 when a group failed, and with `--check` when a target is missed."""
    options = _parser(groups).parse_args(arguments)
    sizes = Sizes(bulk=options.jobs, many=options.scale)
    console = Console()
    figures = Figures()
    failed: list[str] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="runner-bench-", dir=options.folder) as name:
        folder = Path(name)
        described = machine.describe(folder)
        for group, measure in groups.items():
            if group in options.only:
                console.print(f"{group} ({time.monotonic() - started:.0f} s)")
                here = folder / group
                here.mkdir()
                try:
                    measure(here, sizes, figures, options.rounds)
                except BenchmarkFailed as failure:
                    # What the others measure in minutes is not thrown away for it.
                    failed.append(group)
                    console.print(f"[red]{group} failed[/]: {escape(str(failure))}")
    all_ok = report.show(console, figures, described)
    spent = time.monotonic() - started
    console.print(f"written to {report.write(options.out, figures, described)} after {spent:.0f} s")
    return 1 if failed or (options.check and not all_ok) else 0


def _parser(groups: Mapping[str, Measure]) -> argparse.ArgumentParser:
    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in groups:
                known = ", ".join(groups)
                raise argparse.ArgumentTypeError(f"there is no group {name!r}; there are {known}")
        return text.split(",")

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures the server against references on this machine.",
    )
    parser.add_argument(
        "--only", type=names, default=list(groups), help=f"groups, with commas: {', '.join(groups)}"
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
    sys.exit(main(sys.argv[1:]))
