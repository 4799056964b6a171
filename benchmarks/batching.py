"""Effect: measures what it saves to run jobs together: in batches of 8 and in 8 slots, against one by one.

`python benchmarks/batching.py --jobs 1000 --rounds 5`: three handlers, calls of 5 ms, one server, by turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from runner.testing import ServedClient, running

HANDLERS = """import asyncio, time
from runner import Batch, handler

@handler("single", keep_alive="1h", concurrency=1)
def single(data: int) -> int:
    time.sleep(0.005)
    return data

@handler("batch", batch=Batch(max=8, wait="5ms"), keep_alive="1h", concurrency=8)
def batch(data: list[int]) -> list[int]:
    time.sleep(0.005)
    return data

@handler("slots", slots=8, keep_alive="1h", concurrency=8)
async def slots(data: int) -> int:
    await asyncio.sleep(0.005)
    return data
"""
NAMES = ("single", "batch", "slots")
PATIENCE_S = 120.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Jobs one by one, in batches and in slots.")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "together.py"
        file.write_text(HANDLERS)
        with running([file], devices={"max_executors": 3}) as client:
            rates, waits = measure(client, options.jobs, options.rounds)
    print(f"{'':8}{'jobs/s median':>15}{'min':>8}{'max':>8}{'a lone job, ms':>16}")
    for name in NAMES:
        taken = rates[name]
        row = (statistics.median(taken), min(taken), max(taken), 1000 * statistics.median(waits[name]))
        print(f"{name:8}" + "{:>15.0f}{:>8.0f}{:>8.0f}{:>16.1f}".format(*row))


def measure(
    client: ServedClient, jobs: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Jobs a second of each handler, submitted at once; and seconds of lone jobs. By turns."""
    rates: dict[str, list[float]] = {name: [] for name in NAMES}
    waits: dict[str, list[float]] = {name: [] for name in NAMES}
    for name in NAMES:
        client.run(name, 0)
    for _ in range(rounds):
        for name in NAMES:
            begin = time.perf_counter()
            outputs = client.map(name, list(range(jobs)), result_timeout=PATIENCE_S)
            if list(outputs) != list(range(jobs)):
                raise SystemExit(f"{name} gave other outputs than it should")
            rates[name].append(jobs / (time.perf_counter() - begin))
        for name in NAMES:
            for _ in range(10):
                begin = time.perf_counter()
                client.run(name, 0)
                waits[name].append(time.perf_counter() - begin)
    return rates, waits


if __name__ == "__main__":
    main()
