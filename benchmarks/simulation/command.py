"""Effect: the command line of the simulator: which jobs, which policies, where the figures go."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from benchmarks.simulation import decisions, jobfile, mix, plot, table, trace
from benchmarks.simulation.devices import parse_devices
from benchmarks.simulation.engine import simulate
from benchmarks.simulation.job import InvalidJob, SimulatedJob, check_fit
from benchmarks.simulation.limits import LIMIT_FACTOR, add_limits
from benchmarks.simulation.outcome import Outcome, average
from benchmarks.simulation.policies import POLICIES
from gpu.devices.device import Device, sim

#: Of a table that is not shown on a terminal.
WIDTH = 110


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs by offered load (None: as they come) and seed, and what they run on."""

    title: str
    devices: Sequence[Device]
    loads: Sequence[float | None]
    seeds: Sequence[int]
    draw: Callable[[float | None, int], list[SimulatedJob]]


def main(arguments: Sequence[str]) -> int:
    """Exit code 0; 2 where the jobs or the devices make no sense, with a line that says which."""
    options = _parser().parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        # In a file no figure is cut for want of room.
        console = Console(width=WIDTH)
    try:
        if options.decisions:
            document = decisions.measure(console)
        else:
            document = _simulate(_workload(options), options, console)
        if options.json:
            options.json.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    except (InvalidJob, plot.NoMatplotlib, OSError) as error:
        print(f"simulate: {error}", file=sys.stderr)
        return 2
    return 0


def _workload(options: argparse.Namespace) -> Workload:
    per_device = options.executors_per_device
    seeds = range(1, options.seeds + 1)
    if options.jobs:
        jobs = jobfile.read(options.jobs)
        devices = parse_devices(options.devices, per_device)
        return Workload(f"{options.jobs.name}", devices, [None], [1], lambda load, seed: jobs)
    if options.trace:
        pods = trace.read(options.trace)
        count = options.count or trace.JOBS
        return Workload(
            "trace",
            [sim(place, trace.DEVICE_BYTES, per_device) for place in range(trace.DEVICES)],
            options.loads or [0.5, 0.65, 0.75],
            seeds,
            lambda load, seed: pods.jobs(load or 1.0, seed, count),
        )
    count = options.count or mix.JOBS
    return Workload(
        "mix",
        [sim(place, mix.DEVICE_BYTES, 1) for place in range(mix.DEVICES)],
        options.loads or [0.6],
        seeds,
        lambda load, seed: mix.jobs(load or 1.0, seed, count),
    )


def _simulate(workload: Workload, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    by_load: dict[float | None, dict[str, Any]] = {}
    outcomes: dict[float | None, dict[str, list[Outcome]]] = {}
    for load in workload.loads:
        runs: list[dict[str, Any]] = []
        for seed in workload.seeds:
            jobs = add_limits(workload.draw(load, seed), options.limits)
            check_fit(jobs, workload.devices)
            figures = {}
            for name in options.policies:
                began = time.process_time()
                policy = POLICIES[name](jobs, workload.devices, options.keep_alive)
                outcome = simulate(jobs, policy)
                figures[name] = outcome.figures()
                outcomes.setdefault(load, {}).setdefault(name, []).append(outcome)
                if options.verbose:
                    spent = time.process_time() - began
                    console.print(
                        f"{name}, load {load}, seed {seed}: {len(jobs):,} jobs, {spent:.1f} s of CPU"
                    )
            runs.append({"seed": seed, "policies": figures})
        merged = {name: average(run["policies"][name] for run in runs) for name in options.policies}
        by_load[load] = {"policies": merged, "runs": runs}
        table.show(console, workload.title, load, merged)
    if options.plot:
        plot.draw(options.plot, workload.title, outcomes)
        console.print(f"drawn to {options.plot}")
    if None in by_load:
        return {"policies": by_load[None]["policies"]}
    return {"loads": {str(load): document for load, document in by_load.items()}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python benchmarks/simulate.py",
        description="Runs jobs through the product's plan and through usual policies, in virtual time.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--jobs", type=Path, metavar="FILE.csv", help="jobs of your own; see benchmarks/simulation.md"
    )
    source.add_argument(
        "--trace", type=Path, metavar="DIR", help=f"a real cluster's jobs: {trace.FILE} in there"
    )
    source.add_argument("--mix", action="store_true", help=f"{mix.MODELS} models on {mix.DEVICES} GPUs")
    source.add_argument("--decisions", action="store_true", help="what one plan costs with 1,000 devices")
    parser.add_argument("--devices", default="8x80GiB", type=_devices, help="for --jobs: 4x80GiB,8x24GiB")
    parser.add_argument("--executors-per-device", type=_positive, help="for --jobs and --trace; default 8")
    parser.add_argument("--policies", type=_policies, default=list(POLICIES), help=",".join(POLICIES))
    parser.add_argument("--loads", type=_loads, help="for --trace and --mix: offered loads, with commas")
    parser.add_argument("--seeds", type=_positive, default=1, help="for --trace and --mix: draws a load")
    parser.add_argument("--count", type=_positive, help="for --trace and --mix: jobs a draw")
    parser.add_argument(
        "--limits",
        type=_limits,
        default=LIMIT_FACTOR,
        metavar="TIMES",
        help="the time limit of a job without one, in times its run; none: nobody has a limit",
    )
    parser.add_argument(
        "--keep-alive", type=_keep_alive, default=math.inf, help="seconds that ours keeps idle executors"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="where the figures go")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="where a picture of the waits goes")
    parser.add_argument("--verbose", action="store_true", help="say what each simulation cost")
    return parser


def _devices(text: str) -> str:
    try:
        parse_devices(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _policies(text: str) -> list[str]:
    for name in text.split(","):
        if name not in POLICIES:
            raise argparse.ArgumentTypeError(f"there is no policy {name!r}; there are {', '.join(POLICIES)}")
    return text.split(",")


def _loads(text: str) -> list[float]:
    try:
        loads = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers with commas") from None
    if not all(0 < load < 100 for load in loads):
        raise argparse.ArgumentTypeError(f"{text!r}: a load is above 0; 1 keeps all devices busy")
    return loads


def _limits(text: str) -> float | None:
    if text == "none":
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 1 <= factor < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 1 on nor none")
    return factor


def _keep_alive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 on, nor inf")
    return seconds


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
