"""How long a retry waits."""

from __future__ import annotations

import pytest

from runner.jobs.retry import Backoff, delay_s

BARE = 0.5


@pytest.mark.parametrize(
    ("backoff", "failure", "expected"),
    [
        (Backoff("exponential", 1.0, 600.0), 1, 1.0),
        (Backoff("exponential", 1.0, 600.0), 4, 8.0),
        (Backoff("exponential", 1.0, 600.0), 11, 600.0),
        (Backoff("exponential", 1.0, 600.0), 10_000, 600.0),
        (Backoff("fixed", 3.0), 9, 3.0),
        (Backoff("linear", 3.0), 4, 12.0),
        (Backoff("linear", 300.0), 4, 600.0),
        (Backoff("list", steps_s=(1.0, 60.0)), 1, 1.0),
        (Backoff("list", steps_s=(1.0, 60.0)), 2, 60.0),
        (Backoff("list", steps_s=(1.0, 60.0)), 7, 60.0),
        (Backoff("list"), 1, 0.0),
    ],
)
def test_the_curve_is_as_written(backoff: Backoff, failure: int, expected: float) -> None:
    assert delay_s(backoff, failure, BARE) == pytest.approx(expected)


def test_jitter_spreads_to_both_sides() -> None:
    backoff = Backoff("fixed", 10.0, jitter=0.2)
    assert delay_s(backoff, 1, 0.0) == pytest.approx(8.0)
    assert delay_s(backoff, 1, 0.999999) == pytest.approx(12.0, rel=1e-3)


def test_a_delay_is_never_negative() -> None:
    assert delay_s(Backoff("fixed", 10.0, jitter=5.0), 1, 0.0) == 0.0
