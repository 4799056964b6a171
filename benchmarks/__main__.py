"""Effect: one benchmark run: alternating rounds of runner and its references, a table, a JSON file."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks import line, machine, references, report
from benchmarks.figure import Figures


def main() -> int:
    """Exit code 0; with `--check` 1 when a target is missed."""
    options = _parser().parse_args()
    sizes = line.Sizes(bulk=options.jobs)
    console = Console()
    figures = Figures()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="runner-bench-") as name:
        folder = Path(name)
        described = machine.describe(folder)
        for number in range(options.rounds):
            console.print(f"round {number + 1} of {options.rounds} ({time.monotonic() - started:.0f} s)")
            here = folder / str(number)
            here.mkdir()
            if "runner" in options.only:
                line.measure(here, sizes, figures)
            if "huey" in options.only:
                references.measure_huey(here / "huey", sizes, figures)
            if "pool" in options.only:
                references.measure_pool(sizes, figures)
    all_ok = report.show(console, figures, described)
    console.print(f"written to {report.write(options.out, figures, described)}")
    return 1 if options.check and not all_ok else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--jobs", type=int, default=10_000, help="no-op jobs of a bulk round, a multiple of 1,000"
    )
    parser.add_argument("--only", nargs="+", choices=["runner", "huey", "pool"])
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.set_defaults(only=["runner", "huey", "pool"])
    return parser


if __name__ == "__main__":
    sys.exit(main())
