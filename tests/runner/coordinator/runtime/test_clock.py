"""The clock agrees with the wall clock at its start, and takes its times for its own until that is set."""

from __future__ import annotations

import time

from runner.coordinator.runtime.clock import SKEW_S, SystemClock


def test_the_clock_starts_at_wall_time_and_only_goes_forward() -> None:
    clock = SystemClock()
    readings = [clock.now() for _ in range(100)]
    assert readings == sorted(readings)
    assert abs(readings[0] - time.time()) < SKEW_S


def test_a_wall_time_is_kept_while_the_wall_clock_was_not_set() -> None:
    assert SystemClock().from_wall_time(1234.5) == 1234.5


def test_a_wall_time_is_corrected_once_the_wall_clock_was_set() -> None:
    clock = SystemClock()
    # As after the wall clock was put forward by an hour.
    clock._offset -= 3600
    assert abs(clock.from_wall_time(time.time()) - clock.now()) < SKEW_S
