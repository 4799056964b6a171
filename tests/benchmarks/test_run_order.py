"""Each group of the benchmark, on real servers, with little of everything."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.figure import Figures
from benchmarks.report import TARGETS
from benchmarks.run_order import GROUPS
from benchmarks.scale_sizes import Sizes

pytestmark = pytest.mark.slow

SMALL = Sizes(
    accept_chunks=1,
    accept_chunk=5,
    accept_bulk=10,
    accept_rows=5,
    readers=3,
    outputs=3_000,
    idle_s=0.3,
    settle_s=0.0,
    saturated_s=0.5,
    naps=4,
    few=20,
    many=200,
    assigned=5,
    drained=60,
)
#: Group -> the targets that it makes figures for. `line` needs Huey, which the tests do without.
JUDGED = {
    "accept": {"jobs accepted one by one", "jobs accepted in bulk"},
    "stream": {
        "output events to all readers, while it runs",
        "output events to all readers, after its end",
    },
    "commits": {"commit beside a busy loop, p99"},
    "overhead": {"overhead on jobs of 100 ms"},
    "idle": {"idle: CPU of all processes", "idle: PSS of all processes"},
    "scale": {
        "assign time, all against few",
        "coordinator's RSS, all wait",
        "restart after a kill, all wait: to ready",
    },
}


def test_every_group_but_the_references_is_tried_here() -> None:
    assert set(GROUPS) - {"line"} == set(JUDGED)


@pytest.mark.parametrize("group", JUDGED)
def test_a_group_makes_the_figures_of_its_targets(group: str, tmp_path: Path) -> None:
    figures = Figures()
    GROUPS[group](tmp_path, SMALL, figures, 1)
    assert {target.figure for target in TARGETS if figures.judge(target)} == JUDGED[group]
    values = [value for figure in figures.by_key.values() for value in figure.values]
    assert values and all(math.isfinite(value) for value in values)
