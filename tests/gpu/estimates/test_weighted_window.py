"""Quantiles of the last samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu.estimates.weighted_window import HALF_LIFE, SAMPLES_MAX, WeightedWindow, quantile_uncertainty

FLOATS = st.floats(0, 1e12)
SOME = st.lists(FLOATS, min_size=1, max_size=SAMPLES_MAX)


@given(SOME, st.floats(0, 1))
def test_a_quantile_is_a_sample_and_rises_with_its_share(samples: list[float], q: float) -> None:
    window = WeightedWindow(samples)
    assert window.quantile(q) in samples
    assert min(samples) <= window.quantile(q) <= window.quantile(1.0) == max(samples)


@given(SOME)
def test_the_mean_lies_among_the_samples(samples: list[float]) -> None:
    assert min(samples) <= WeightedWindow(samples).mean() <= max(samples)


def test_few_samples_are_told_exactly() -> None:
    window = WeightedWindow([10.0, 20.0, 30.0, 40.0])
    assert [window.quantile(q) for q in (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)] == [10, 20, 30, 40, 40, 40]


def test_newer_samples_weigh_more() -> None:
    window = WeightedWindow([1.0] * HALF_LIFE + [5.0] * HALF_LIFE)
    # The older half weighs half as much: a third of all.
    assert (window.quantile(0.33), window.quantile(0.34)) == (1.0, 5.0)
    assert window.mean() == pytest.approx((1 + 2 * 5) / 3)


def test_the_oldest_are_forgotten_and_the_newest_counts_at_once() -> None:
    window = WeightedWindow([9.0])
    for _ in range(SAMPLES_MAX):
        window.add(1.0)
        assert len(window) <= SAMPLES_MAX
    assert window.quantile(1.0) == 1.0
    window.add(7.0)
    assert (window.quantile(1.0), window.samples[-1]) == (7.0, 7.0)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200))
def test_a_window_that_grew_is_as_one_made_of_its_last_samples(samples: list[int]) -> None:
    window = WeightedWindow()
    for sample in samples:
        window.add(sample)
    again = WeightedWindow(samples[-SAMPLES_MAX:])
    assert window.samples == again.samples == samples[-SAMPLES_MAX:]
    assert [window.quantile(n / 20) for n in range(21)] == [again.quantile(n / 20) for n in range(21)]
    assert window.mean() == pytest.approx(again.mean())


def test_a_window_is_as_exact_after_very_many_samples() -> None:
    window = WeightedWindow()
    for job_number in range(30_000):
        window.add(job_number % 7)
    again = WeightedWindow(window.samples)
    assert [window.quantile(job_number / 20) for job_number in range(21)] == [
        again.quantile(job_number / 20) for job_number in range(21)
    ]
    assert window.mean() == pytest.approx(again.mean())


def test_without_samples_there_is_nothing_to_tell() -> None:
    window = WeightedWindow()
    assert not window
    with pytest.raises(IndexError):
        window.quantile(0.5)
    with pytest.raises(IndexError):
        window.mean()


def test_the_more_samples_the_less_is_added() -> None:
    assert [quantile_uncertainty(job_number) for job_number in (1, 4, 64)] == [0.5, 0.25, 0.0625]
