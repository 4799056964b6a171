"""Effect: measures what a server costs that has nothing to do."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.figure import Figures
from benchmarks.http_client import Connection
from benchmarks.scale_sizes import Sizes
from benchmarks.server import Server
from benchmarks.workload import warm


def measure(folder: Path, sizes: Sizes, figures: Figures, rounds: int) -> None:
    """With a loaded executor for each core it may use; one long look, whatever the rounds."""
    server = Server(folder / "data")
    try:
        connection = Connection(server.port)
        warm(connection)
        connection.close()
        time.sleep(sizes.settle_s)
        before, began = server.cpu_s(), time.perf_counter()
        time.sleep(sizes.idle_s)
        after, passed_s = server.cpu_s(), time.perf_counter() - began
        for role, seconds in after.items():
            share = 100 * (seconds - before.get(role, 0.0)) / passed_s
            figures.add(f"idle: CPU of {role}", "runner", "% of a core", share)
        total = sum(after.values()) - sum(before.values())
        figures.add("idle: CPU of all processes", "runner", "% of a core", 100 * total / passed_s)
        figures.add("idle: PSS of all processes", "runner", "MB", server.pss_bytes() / 1e6)
    finally:
        server.stop()
