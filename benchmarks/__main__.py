"""Effect: one benchmark run: alternating rounds of runner and its references, a table, a JSON file."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks import machine, report
from benchmarks.figure import Figures
from benchmarks.line import Line, Sizes
from benchmarks.references import Huey, Pool


def main() -> int:
    """Exit code 0; with `--check` 1 when a target is missed."""
    options = _parser().parse_args()
    sizes = Sizes(bulk=options.jobs)
    console = Console()
    figures = Figures()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="runner-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        described = machine.describe(folder)
        huey = Huey(folder, sizes, figures)
        huey.open()
        stack.callback(huey.close)
        pool = Pool(sizes, figures)
        pool.open()
        stack.callback(pool.close)
        for number in range(options.rounds):
            console.print(f"round {number + 1} of {options.rounds} ({time.monotonic() - started:.0f} s)")
            here = folder / str(number)
            here.mkdir()
            _round(Line(here, sizes, figures), huey, pool, sizes)
        huey.defaults()
    all_ok = report.show(console, figures, described)
    console.print(f"written to {report.write(options.out, figures, described)}")
    return 1 if options.check and not all_ok else 0


def _round(line: Line, huey: Huey, pool: Pool, sizes: Sizes) -> None:
    """All sides take turns, so that whatever else the machine does meets all of them."""
    line.open()
    try:
        for side in (pool, line, huey):
            side.bulk()
        for _ in range(sizes.chunks):
            line.singles()
            huey.singles()
        huey.finish()
        line.finish()
    finally:
        line.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--jobs", type=int, default=10_000, help="no-op jobs of a bulk round, a multiple of 1,000"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
