"""Effect: draws how long jobs waited under each policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.simulation.outcome import Outcome

#: On a log scale there is no 0: who waited for less stands here.
LEAST_S = 1.0
#: Told apart without colours too.
_STYLES = {
    "ours": ("#0072B2", "-"),
    "fifo": ("#D55E00", "--"),
    "skip": ("#009E73", "-."),
    "slots": ("#7F7F7F", ":"),
}


class NoMatplotlib(RuntimeError):
    """The plot can't be drawn."""


def draw(path: Path, title: str, outcomes: Mapping[float | None, Mapping[str, Sequence[Outcome]]]) -> None:
    """A column a load: above all jobs, below those of 2 and more GPUs, where there are some.

    Raises:
        NoMatplotlib: it is not installed.
        OSError: the file can't be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NoMatplotlib("--plot needs matplotlib: pip install -e '.[examples]'") from None
    has_big = any(each.waits_of(2) for of in outcomes.values() for many in of.values() for each in many)
    rows = [("all jobs", 1), ("jobs of 2 and more GPUs", 2)][: 1 + has_big]
    figure = Figure(figsize=(4.2 * len(outcomes) + 1, 3.4 * len(rows) + 0.6), layout="constrained")
    grid = figure.subplots(len(rows), len(outcomes), sharey=True, squeeze=False)
    for column, (load, policies) in enumerate(outcomes.items()):
        for row, (what, min_gpus) in enumerate(rows):
            axes = grid[row][column]
            _panel(axes, policies, min_gpus)
            axes.set_title(what if load is None else f"{what}, offered load {load:g}", fontsize=10)
            if row == len(rows) - 1:
                axes.set_xlabel("wait in seconds, shorter ones at 1")
            if column == 0:
                axes.set_ylabel("share that waited no longer")
    grid[0][0].legend(loc="lower right", fontsize=9)
    figure.suptitle(f"{title}: from submission to the start of the run", fontsize=11)
    figure.savefig(path, dpi=130)


def _panel(axes: Any, policies: Mapping[str, Sequence[Outcome]], min_gpus: int) -> None:
    for name, many in policies.items():
        waits = sorted(max(wait, LEAST_S) for each in many for wait in each.waits_of(min_gpus))
        if not waits:
            continue
        colour, line = _STYLES[name]
        shares = [place / len(waits) for place in range(1, len(waits) + 1)]
        axes.step(
            [LEAST_S, *waits],
            [0.0, *shares],
            where="post",
            color=colour,
            linestyle=line,
            linewidth=1.8,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    axes.grid(visible=True, which="major", alpha=0.3)
