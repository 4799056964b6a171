"""Pure: the slope is that of the points within each series, whatever their levels are."""

from __future__ import annotations

import pytest

from benchmarks.soak.slope import Slope


def test_series_of_different_levels_have_one_slope() -> None:
    slope = Slope()
    for key, level in ((1, 5e9), (2, 0.0)):
        for x in range(10):
            slope.add(key, x, level + 3 * x)
    assert slope.value == pytest.approx(3.0)
    assert (slope.count, slope.width) == (20, 9)


def test_single_points_have_none() -> None:
    slope = Slope()
    assert (slope.value, slope.width) == (None, 0.0)
    slope.add(1, 1.0, 1.0)
    slope.add(2, 2.0, 9.0)
    assert slope.value is None
