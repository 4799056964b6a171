from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.coordinator.jobs.usage_meter import UsageMeter


def test_one_after_another_each_has_its_own_time() -> None:
    meter = UsageMeter()
    first = meter.start_attempt(10.0)
    assert meter.end_attempt(12.0, first) == 2.0
    second = meter.start_attempt(15.0)
    assert meter.end_attempt(20.0, second) == 5.0


def test_at_once_they_share_it() -> None:
    meter = UsageMeter()
    first = meter.start_attempt(0.0)
    second = meter.start_attempt(4.0)
    assert meter.end_attempt(10.0, first) == 7.0
    assert meter.end_attempt(12.0, second) == 5.0


def test_what_is_told_late_is_not_counted_twice() -> None:
    meter = UsageMeter()
    first = meter.start_attempt(0.0)
    assert meter.end_attempt(3.0, first) == 3.0
    second = meter.start_attempt(2.0)
    assert meter.end_attempt(5.0, second) == 2.0


@given(moves=st.lists(st.tuples(st.booleans(), st.floats(0.0, 100.0)), max_size=60))
def test_all_together_have_had_what_has_passed_while_somebody_was_there(
    moves: list[tuple[bool, float]],
) -> None:
    meter, now, busy_s, told_s = UsageMeter(), 0.0, 0.0, 0.0
    begun: list[float] = []
    for is_begin, passes_s in [*moves, *[(False, 1.0)] * len(moves)]:
        now += passes_s
        busy_s += passes_s if begun else 0.0
        if is_begin:
            begun.append(meter.start_attempt(now))
        elif begun:
            told_s += meter.end_attempt(now, begun.pop(0))
    assert told_s == pytest.approx(busy_s, abs=1e-6)
