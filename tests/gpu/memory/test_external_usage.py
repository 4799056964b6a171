from __future__ import annotations

from gpu.memory.external_usage import WINDOW_S, ExternalUsage


def after(*readings: tuple[float, int], window_s: float = WINDOW_S) -> int:
    foreign = ExternalUsage(window_s)
    for now, nbytes in readings:
        foreign.observe(nbytes, nbytes, now)
    return foreign.nbytes


def test_growth_is_believed_at_once_and_a_fall_after_half_a_minute() -> None:
    assert after() == 0
    assert after((0, 1), (1, 9)) == 9
    assert after((0, 9), (1, 1)) == 9
    assert after((0, 9), (1, 1), (29, 2)) == 9
    assert after((0, 9), (1, 1), (31, 2)) == 2


def test_the_largest_of_the_window_counts_not_the_first() -> None:
    assert after((0, 9), (20, 5), (40, 1)) == 5
    assert after((0, 5), (20, 9), (40, 1)) == 9
    assert after((0, 5), (20, 5), (49, 1)) == 5


def test_without_a_window_the_last_reading_counts() -> None:
    assert after((0, 9), (0, 1), window_s=0.0) == 1


def test_of_what_is_not_known_exactly_the_value_nearest_to_the_last_is_taken() -> None:
    foreign = ExternalUsage()
    foreign.observe(2, 8, 0)
    assert foreign.nbytes == 8, "at first the largest"
    foreign = ExternalUsage()
    foreign.observe(3, 3, 0)
    for least, most, expected in [(0, 9, 3), (5, 9, 5), (0, 2, 2), (0, 4, 2)]:
        foreign.observe(least, most, 0)
        assert foreign.last_bytes == expected


def test_a_reading_is_read_anew_when_more_of_it_is_known() -> None:
    foreign = ExternalUsage()
    foreign.correct(7, 7)
    assert foreign.last_bytes is None and foreign.nbytes == 0
    foreign.observe(1, 1, 0)
    foreign.observe(9, 9, 1)
    foreign.correct(2, 2)
    assert foreign.nbytes == 2
    foreign.correct(4, 6)
    assert foreign.nbytes == 4
