"""Effect: the command line of the GPU benchmark: what is measured, a table, a JSON file, an exit code."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import machine
from benchmarks.device.device_under_test import DeviceUnderTest, NoGpu
from benchmarks.device.measures import MEASURES, OVERHEAD, QUICK, Sizes
from benchmarks.figure import Figures, Target
from benchmarks.http_client import BenchmarkFailed

TARGET = Target(OVERHEAD, None, "<=", 3.0)
SIMULATED = "SIMULATED: the GPU of this run is made up, and no figure tells anything of a real one"
#: Exit codes, besides 0 and those of a wrong command line (2).
FAILED, NO_GPU = 1, 3


def main(arguments: Sequence[str]) -> int:
    """Exit code 0; 1 when a measurement failed or, with `--check`, the target is missed; 3 without a GPU."""
    options = _parser().parse_args(arguments)
    console = Console(width=110 if not sys.stdout.isatty() else None)
    signal.signal(signal.SIGALRM, _out_of_time)
    with tempfile.TemporaryDirectory(prefix="runner-bench-") as name:
        try:
            device_under_test = _open_device(options.device, Path(name) / "gpus")
        except NoGpu as why:
            console.print(
                f"there is no GPU to measure on: {escape(str(why))}\n"
                "`--device fake` shows the whole run on one that is made up"
            )
            return NO_GPU
        signal.alarm(options.limit)
        return _measure(console, device_under_test, options, Path(name))


def _measure(
    console: Console, device_under_test: DeviceUnderTest, options: argparse.Namespace, folder: Path
) -> int:
    is_simulated = options.device == "fake"
    figures, failed = Figures(), []
    began = time.monotonic()
    try:
        about = _describe(device_under_test, folder)
        for name, measure in MEASURES.items():
            if name in options.only:
                console.print(f"{name} ({time.monotonic() - began:.0f} s)")
                try:
                    measure(device_under_test, QUICK if options.quick else Sizes(), figures)
                except (BenchmarkFailed, TimeoutError) as error:
                    failed.append(f"{name}: {error}")
                    console.print(f"[red]{name} failed[/]: {escape(str(error))}")
    except (OutOfTime, BenchmarkFailed) as error:
        console.print(f"[red]failed[/]: {escape(str(error))}")
        return FAILED
    finally:
        signal.alarm(0)
    verdict = _show(console, figures, about, is_simulated)
    if options.json is not None:
        document = {
            "simulated": is_simulated,
            "machine": about,
            "figures": [
                {"name": each.name, "of": each.subject, "unit": each.unit, "values": each.values}
                for each in figures.by_key.values()
            ],
            "failed": failed,
        }
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    return FAILED if failed or (options.check and not verdict) else 0


class OutOfTime(Exception):
    """The whole run took longer than it may."""


def _out_of_time(_: int, __: FrameType | None) -> None:
    raise OutOfTime("the run was stopped at its --limit; --only and --quick measure less")


def _open_device(device: str, folder: Path) -> DeviceUnderTest:
    if device != "fake":
        import pynvml

        return DeviceUnderTest(device, pynvml, {})
    from tests.fakes import fake_gpus, fake_nvml

    gpus = fake_gpus.FakeGpus(folder, fake_gpus.Card("GPU-fake-0"))
    return DeviceUnderTest("0", fake_nvml.load(gpus.folder), gpus.environ())


def _describe(device_under_test: DeviceUnderTest, folder: Path) -> dict[str, Any]:
    with device_under_test.run_plain() as ask:
        about = ask("about")
    return {
        **machine.describe(folder),
        "gpu": device_under_test.device.name,
        "gpu_bytes": device_under_test.device.total_bytes,
        "driver": device_under_test.driver,
        "torch": about["torch"],
        "cuda": about["cuda"],
    }


def _show(console: Console, figures: Figures, about: dict[str, Any], is_simulated: bool) -> bool:
    """Print everything; whether the target is reached, or was not measured."""
    table = Table(title="Measured (median of the rounds, lowest and highest)")
    for heading in ("figure", "of", "median", "spread", "unit"):
        table.add_column(heading, justify="right" if heading in ("median", "spread") else "left")
    for each in figures.by_key.values():
        spread = "" if len(each.values) == 1 else f"{each.low:,.4g} - {each.high:,.4g}"
        table.add_row(each.name, each.subject, f"{each.median:,.4g}", spread, each.unit)
    console.print(table)
    verdict = figures.judge(TARGET)
    if verdict is not None:
        word = "ok" if verdict.ok else "missed"
        console.print(f"{TARGET.figure}: {verdict.reached:.3g} %, target {TARGET.text()} %: {word}")
    console.print(
        f"{about['gpu']}, {about['gpu_bytes'] / 2**30:.1f} GiB, driver {about['driver']}, "
        f"torch {about['torch']}, CUDA {about['cuda']}; "
        f"{about['processor']}, {about['cores']:.0f} cores, Python {about['python']}",
        soft_wrap=True,
    )
    if is_simulated:
        console.print(f"[bold red]{SIMULATED}[/]")
    return verdict is None or verdict.ok


def _parser() -> argparse.ArgumentParser:
    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in MEASURES:
                raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {', '.join(MEASURES)}")
        return text.split(",")

    parser = argparse.ArgumentParser(prog="python benchmarks/gpu.py", description=__doc__)
    parser.add_argument(
        "--device", default="0", help="a GPU by its place or uuid, or `fake`: one that is made up"
    )
    parser.add_argument("--only", type=names, default=list(MEASURES), help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--quick", action="store_true", help="as little as possible: to see that it runs")
    parser.add_argument("--limit", type=int, default=900, help="seconds after which it is stopped")
    parser.add_argument("--check", action="store_true", help="exit 1 when the target is missed")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser
