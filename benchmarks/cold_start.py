"""Effect: measures what a template saves: from the order to load until an executor is ready, and its memory.

`python benchmarks/cold_start.py --modules torch --rounds 10`: two servers, one with a template of these
modules and one without, load a handler that imports them, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from runner.testing import ServedClient, running

HANDLER = """import {modules}
from runner import handler

@handler("model", gpus=0, model_by="name", keep_alive="1h")
class Model:
    def load(self): self.ready = True
    def run(self, data): return self.ready
"""
PATIENCE_S = 60.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Cold starts with and without a template.")
    parser.add_argument("--modules", default="torch", help="comma-separated (default: torch)")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.py"
        file.write_text(HANDLER.format(modules=options.modules))
        template = {"template": options.modules}
        with running([file]) as started, running([file], executors=template) as forked:
            clients = {"started": started, "forked": forked}
            times = measure(clients, options.rounds)
            pss = {name: pss_of_four(client) for name, client in clients.items()}
    print(f"{'':10}{'median s':>10}{'min':>8}{'max':>8}{'PSS of 4, MiB each':>22}")
    for name, taken in times.items():
        row = (statistics.median(taken), min(taken), max(taken))
        print(f"{name:10}" + "{:>10.3f}{:>8.3f}{:>8.3f}".format(*row) + f"{pss[name]:>22.0f}")


def measure(clients: dict[str, ServedClient], rounds: int) -> dict[str, list[float]]:
    """Seconds of each load, by turns; the first ones, in which workers start, do not count."""
    times: dict[str, list[float]] = {name: [] for name in clients}
    for number in range(rounds + 2):
        for name, client in clients.items():
            begin = time.perf_counter()
            client.load("model", "a")
            taken = time.perf_counter() - begin
            client.unload("model")
            wait_until_gone(client)
            if number >= 2:
                times[name].append(taken)
    return times


def pss_of_four(client: ServedClient) -> float:
    """MiB of PSS that each of four executors has, all being loaded."""
    for model in "abcd":
        client.load("model", model)
    worker = next(each["pid"] for each in client.workers() if each["device"] == "cpu")
    found = [each for each in child_pids(worker) if b"template." not in environment(each)]
    return statistics.mean(map(pss_mib, found))


def wait_until_gone(client: ServedClient) -> None:
    """Until no executor is left."""
    deadline = time.monotonic() + PATIENCE_S
    while client.handler("model")["executors"]:
        if time.monotonic() > deadline:
            raise TimeoutError("an executor did not go")
        time.sleep(0.01)


def child_pids(pid: int) -> list[int]:
    """The children of a process."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text().split()]


def environment(pid: int) -> bytes:
    """As the kernel shows it."""
    return Path(f"/proc/{pid}/environ").read_bytes()


def pss_mib(pid: int) -> float:
    """Its fair part of all pages."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))) / 1024


if __name__ == "__main__":
    main()
