"""Effect: the groups of figures, one after the other, so that none disturbs another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from benchmarks import accept, commits, idle, overhead, scale, stream
from benchmarks.figure import Figures
from benchmarks.references import Huey, Pool
from benchmarks.scale_sizes import Sizes
from benchmarks.throughput import Line

#: Measures into the figures, in a folder of its own, as many rounds as it has use for.
Measure = Callable[[Path, Sizes, Figures, int], None]


def line(folder: Path, sizes: Sizes, figures: Figures, rounds: int) -> None:
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
            _round(Line(here, sizes, figures), huey, pool, sizes)
        huey.defaults()


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


#: The longest comes last.
GROUPS: dict[str, Measure] = {
    "line": line,
    "accept": accept.measure,
    "stream": stream.measure,
    "commits": commits.measure,
    "overhead": overhead.measure,
    "idle": idle.measure,
    "scale": scale.measure,
}
