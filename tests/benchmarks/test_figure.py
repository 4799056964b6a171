"""Figures, their targets and what is read from a histogram."""

from __future__ import annotations

import math

import pytest

from benchmarks.exposition import histogram, quantile
from benchmarks.figure import Figures, Target, percentile

TEXT = """\
# TYPE other_seconds histogram
other_seconds_bucket{le="+Inf"} 9.0
# TYPE commit_seconds histogram
commit_seconds_bucket{le="0.001"} 10.0
commit_seconds_bucket{le="0.01"} 90.0
commit_seconds_bucket{le="+Inf"} 100.0
commit_seconds_count 100.0
"""


@pytest.fixture
def figures() -> Figures:
    found = Figures()
    for value in (100.0, 300.0, 200.0):
        found.add("rate", "runner", "jobs/s", value)
    found.add("rate", "other", "jobs/s", 50.0)
    return found


def test_a_figure_is_the_median_of_its_rounds(figures: Figures) -> None:
    figure = figures.by_key["rate", "runner"]
    assert (figure.median, figure.low, figure.high) == (200.0, 100.0, 300.0)


@pytest.mark.parametrize(
    ("target", "reached", "ok"),
    [
        (Target("rate", "other", ">=", 4.0), 4.0, True),
        (Target("rate", "other", ">=", 4.1), 4.0, False),
        (Target("rate", "other", "<=", 3.9), 4.0, False),
        (Target("rate", None, "<=", 200.0), 200.0, True),
        (Target("rate", None, ">=", 201.0), 200.0, False),
    ],
)
def test_a_target_bounds_the_median_or_its_ratio(
    figures: Figures, target: Target, reached: float, ok: bool
) -> None:
    verdict = figures.judge(target)
    assert verdict is not None
    assert (verdict.reached, verdict.ok) == (reached, ok)


def test_what_was_not_measured_is_not_judged(figures: Figures) -> None:
    assert figures.judge(Target("rate", "nobody", ">=", 1.0)) is None
    assert figures.judge(Target("silence", None, ">=", 1.0)) is None


def test_a_target_names_its_bound_in_full() -> None:
    assert Target("rate", None, ">=", 1_000_000).text() == ">= 1,000,000"
    assert Target("rate", "huey", "<=", 0.8).text() == "<= 0.8 x huey"


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, 0.5) == 51.0
    assert percentile(values, 0.99) == 100.0
    assert percentile([3.0], 0.99) == 3.0


def test_a_histogram_is_read_by_its_own_name() -> None:
    assert histogram(TEXT, "commit_seconds") == {0.001: 10.0, 0.01: 90.0, math.inf: 100.0}
    with pytest.raises(ValueError, match="no histogram commit"):
        histogram(TEXT, "commit")


@pytest.mark.parametrize(("share", "seconds"), [(0.05, 0.0005), (0.1, 0.001), (0.5, 0.0055), (0.95, 0.01)])
def test_a_quantile_lies_inside_its_bucket(share: float, seconds: float) -> None:
    assert quantile(histogram(TEXT, "commit_seconds"), share) == pytest.approx(seconds)


def test_no_samples_have_no_quantile() -> None:
    assert math.isnan(quantile({0.001: 0.0, math.inf: 0.0}, 0.99))
