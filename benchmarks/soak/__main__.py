"""Effect: `python -m benchmarks.soak`: everything at once, under kills, for as long as is asked for."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from rich.console import Console

from benchmarks.soak import report
from benchmarks.soak.soak import Options, Soak

#: The pile of a run took 261 MiB at most.
DISK_MIB = 512


def main() -> int:
    """Exit code 1 when an invariant was broken."""
    given = _parser().parse_args()
    seed = given.seed if given.seed is not None else secrets.randbelow(1_000_000)
    options = Options(
        seed, given.minutes, given.rate, given.kill_every, given.pile, given.disk_mib, given.history
    )
    folder = Path(tempfile.mkdtemp(prefix="runner-soak-", dir=given.folder))
    console = Console(width=None if sys.stdout.isatty() else 140)
    again = f"--seed {seed} --minutes {options.minutes:g} --rate {options.rate:g}"
    again += f" --kill-every {options.kill_every_s:g} --pile {options.pile} --disk-mib {options.disk_mib}"
    console.print(f"soak: {again}, in {folder}", soft_wrap=True)
    soak = Soak(folder, options, lambda text: console.print(text, markup=False, soft_wrap=True))
    if not uvloop.run(_to_its_end(soak)):
        console.print(f"stopped; what there is of it is kept in {folder}", soft_wrap=True)
        return 130
    figures = report.build_document(soak)
    path = given.out / f"soak-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    report.write(path, figures)
    report.show(console, figures)
    status = report.print_violations(console, figures, folder, again)
    console.print(f"written to {path}", soft_wrap=True)
    if status == 0:
        shutil.rmtree(folder)
    return status


async def _to_its_end(soak: Soak) -> bool:
    """False where a signal stopped it before; the server is gone then too."""
    running = asyncio.create_task(soak.run())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    usual = Options(0)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description="Runs jobs under kills and tells which promises held.",
    )
    parser.add_argument("--minutes", type=float, default=usual.minutes)
    parser.add_argument("--seed", type=int, help="of the schedule; printed, random where it is not given")
    parser.add_argument("--rate", type=float, default=usual.rate, help="jobs a second, on average")
    parser.add_argument("--kill-every", type=float, default=usual.kill_every_s, help="seconds, on average")
    parser.add_argument("--pile", type=int, default=usual.pile, help="jobs kept; older ones are deleted")
    parser.add_argument(
        "--disk-mib",
        type=int,
        default=DISK_MIB,
        help="size of a file system in memory for the data folder, which is filled at times; 0: none. "
        "Left out where mounting is not permitted",
    )
    parser.add_argument(
        "--history", type=Path, help="file of all calls and answers, for `python -m benchmarks.soak.judge`"
    )
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--folder", type=Path, help="where the data folder is made; the system's own place")
    return parser


if __name__ == "__main__":
    sys.exit(main())
