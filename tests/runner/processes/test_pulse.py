"""Which process counts as hung, for the pings that it leaves unanswered."""

from __future__ import annotations

import pytest

from runner.processes.pulse import (
    BUSY_PINGS_MAX,
    HELD_UP_S,
    KILL_PINGS_MAX,
    LATE_PINGS_MAX,
    PING_INTERVAL_S,
    SILENT_PINGS_MAX,
    Activity,
    Pulse,
    PulseLimits,
)

IDLE = Activity(3.0, "S")


def found_after(pulse: Pulse, activity: Activity | None = IDLE, *, is_ready: bool = True) -> int:
    """The number of pings that are left unanswered when the process is found to hang."""
    for count in range(200):
        if pulse.record_ping(count * PING_INTERVAL_S, activity, is_ready=is_ready):
            return count
    raise AssertionError("it was never found")


@pytest.mark.parametrize(
    ("state", "limit"),
    [("S", SILENT_PINGS_MAX), ("D", SILENT_PINGS_MAX), ("T", SILENT_PINGS_MAX), ("R", BUSY_PINGS_MAX)],
)
def test_a_process_that_waits_for_a_core_is_given_longer(state: str, limit: int) -> None:
    assert found_after(Pulse(), Activity(3.0, state)) == limit


def test_a_hung_process_is_found_once_and_within_eight_seconds() -> None:
    pulse = Pulse()
    found = [pulse.record_ping(float(each), IDLE, is_ready=True) for each in range(60)]
    assert found.count(True) == 1 and found.index(True) <= 8


@pytest.mark.parametrize(("share", "limit"), [(0.04, SILENT_PINGS_MAX), (0.06, BUSY_PINGS_MAX)])
def test_processor_time_since_the_last_answer_makes_a_process_busy(share: float, limit: int) -> None:
    pulse = Pulse()
    for count in range(BUSY_PINGS_MAX + 1):
        activity = Activity(100.0 + share * count * PING_INTERVAL_S, "S")
        if pulse.record_ping(float(count), activity, is_ready=True):
            break
    assert count == limit


def test_a_stopped_process_is_not_busy_whatever_it_used_before() -> None:
    pulse = Pulse()
    pulse.record_ping(0.0, Activity(3.0, "R"), is_ready=True)
    for count in range(1, SILENT_PINGS_MAX):
        assert not pulse.record_ping(float(count), Activity(9.0, "T"), is_ready=True)
    assert pulse.record_ping(float(SILENT_PINGS_MAX), Activity(9.0, "T"), is_ready=True)


def test_a_process_of_which_nothing_can_be_read_is_given_longer() -> None:
    assert found_after(Pulse(), None) == BUSY_PINGS_MAX


def test_a_process_that_starts_and_the_probe_have_limits_of_their_own() -> None:
    assert found_after(Pulse(), is_ready=False) == BUSY_PINGS_MAX
    assert found_after(Pulse(PulseLimits(silent_max=5, busy_max=5)), Activity(3.0, "R")) == 5


def test_each_sign_of_life_makes_up_for_all_that_was_owed() -> None:
    pulse = Pulse()
    for second in range(1000):
        if pulse.unanswered_pings == SILENT_PINGS_MAX:
            assert pulse.is_late
            pulse.record_sign_of_life()
        assert not pulse.record_ping(float(second), IDLE, is_ready=True)
        assert pulse.is_late == (pulse.unanswered_pings > LATE_PINGS_MAX)


def test_a_machine_that_was_suspended_makes_no_process_look_hung() -> None:
    """The monotonic clock stands still meanwhile, or jumps where a virtual machine was paused."""
    for away_s in (0.0, 3_600.0):
        pulse = Pulse()
        pulse.record_ping(100.0, IDLE, is_ready=True)
        assert not pulse.record_ping(101.0 + away_s, IDLE, is_ready=True)
        assert not pulse.is_late


def test_a_watcher_that_was_held_up_reads_the_answers_first() -> None:
    """It blocks again and again: each time the answers are read only after the ping."""
    pulse, now_mono = Pulse(), 0.0
    for _ in range(SILENT_PINGS_MAX):
        assert not pulse.record_ping(now_mono, IDLE, is_ready=True)
        now_mono += PING_INTERVAL_S
    for _ in range(100):
        now_mono += HELD_UP_S + 0.1
        assert not pulse.record_ping(now_mono, IDLE, is_ready=True)


def test_a_process_that_the_kernel_cannot_end_is_known_after_some_more_pings() -> None:
    pulse = Pulse()
    second = found_after(pulse)
    for _ in range(KILL_PINGS_MAX):
        assert not pulse.survives_kill
        second += 1
        assert not pulse.record_ping(float(second), IDLE, is_ready=True)
    assert not pulse.survives_kill
    pulse.record_ping(second + 1.0, IDLE, is_ready=True)
    assert pulse.survives_kill
