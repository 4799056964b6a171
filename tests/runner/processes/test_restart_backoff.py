"""Pure: when a child process that keeps failing is started again."""

from __future__ import annotations

from runner.processes.restart_backoff import RestartBackoff


def pauses_of(backoff: RestartBackoff, count: int) -> list[float]:
    return [backoff.begin_pause(now_mono=0.0) for _ in range(count)]


def test_pauses_double_up_to_the_bound() -> None:
    backoff = RestartBackoff(first_pause_s=0.2, max_pause_s=10.0)
    assert pauses_of(backoff, 8) == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_the_first_pause_follows_a_reset() -> None:
    backoff = RestartBackoff(first_pause_s=0.5, max_pause_s=5.0)
    assert pauses_of(backoff, 3) == [0.5, 1.0, 2.0]
    backoff.reset()
    assert pauses_of(backoff, 2) == [0.5, 1.0]


def test_a_child_that_fails_for_days_is_still_started_again() -> None:
    # 2.0 to the power of 1,024 is no float.
    backoff = RestartBackoff(first_pause_s=0.2, max_pause_s=10.0)
    assert pauses_of(backoff, 2000)[-1] == 10.0


def test_starts_that_are_made_when_no_pause_lasts_get_rarer() -> None:
    backoff = RestartBackoff(first_pause_s=0.2, max_pause_s=5.0)
    now, starts = 0.0, []
    while now < 30:
        if not backoff.is_pausing(now):
            starts.append(now)
            backoff.begin_pause(now)
        now += 0.125
    assert starts == [0, 0.25, 0.75, 1.625, 3.25, 6.5, 11.5, 16.5, 21.5, 26.5]


def test_a_reset_ends_the_pause() -> None:
    backoff = RestartBackoff(first_pause_s=1.0, max_pause_s=5.0)
    backoff.begin_pause(now_mono=100.0)
    assert backoff.is_pausing(100.9) and not backoff.is_pausing(101.0)
    backoff.reset()
    assert not backoff.is_pausing(100.5)
