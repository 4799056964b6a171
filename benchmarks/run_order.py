"""Effect: the groups of figures, one after the other, so that none disturbs another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from benchmarks import accept, commits, idle, overhead, scale, stream
from benchmarks.figure import Figures
from benchmarks.references import Huey, Pool
from benchmarks.scale_sizes import Sizes
from benchmarks.throughput import ThroughputRound

#: Measures into the figures, in a folder of its own, as many rounds as it has use for.
Measure = Callable[[Path, Sizes, Figures, int], None]


def measure_throughput(folder: Path, sizes: Sizes, figures: Figures, rounds: int) -> None:
    """runner, Huey and the pool on the same jobs."""
    with contextlib.ExitStack() as stack:
        huey = Huey(folder, sizes, figures)
        huey.open()
        stack.callback(huey.close)
        pool = Pool(sizes, figures)
        pool.open()
        stack.callback(pool.close)
        for number in range(rounds):
            here = folder / str(number)
            here.mkdir()
            _run_round(ThroughputRound(here, sizes, figures), huey, pool, sizes)
        huey.defaults()


def _run_round(throughput: ThroughputRound, huey: Huey, pool: Pool, sizes: Sizes) -> None:
    """All sides take turns, so that whatever else the machine does meets all of them."""
    throughput.open()
    try:
        for side in (pool, throughput, huey):
            side.bulk()
        for _ in range(sizes.chunks):
            throughput.singles()
            huey.singles()
        huey.finish()
        throughput.finish()
    finally:
        throughput.close()


#: The longest comes last.
GROUPS: dict[str, Measure] = {
    "line": measure_throughput,
    "accept": accept.measure,
    "stream": stream.measure,
    "commits": commits.measure,
    "overhead": overhead.measure,
    "idle": idle.measure,
    "scale": scale.measure,
}
