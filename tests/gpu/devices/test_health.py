from __future__ import annotations

from gpu.devices.health import FAULTS_MAX, PAUSE_S, UNREADABLE_S, WINDOW_S, HealthState


def make_quarantined(now: float = 100.0, *, program: str = "") -> HealthState:
    """A device with as many faults as it takes."""
    health = HealthState(0.0)
    for at in range(FAULTS_MAX):
        health.record_fault(now, "sticky", f"job-{at}", "an illegal memory access", program=program)
    assert state(health) == "quarantined"
    return health


def state(health: HealthState) -> str:
    """Asked anew each time."""
    return health.state


def passed(health: HealthState, now: float) -> None:
    """A check that passes, as soon as one is wanted."""
    assert health.needs_check(now)
    health.is_checking = True
    assert not health.needs_check(now)
    health.record_check(now, None)


def test_one_fault_makes_it_suspect_and_time_forgives_it() -> None:
    health = HealthState(0.0)
    assert (health.state, health.takes_work, health.reason, health.is_proven) == ("ok", True, "", True)
    health.record_fault(10.0, "sticky", "job-1", "an illegal memory access")
    assert (health.state, health.since, health.takes_work) == ("suspect", 10.0, True)
    assert health.reason == "an illegal memory access" and not health.is_proven
    health.expire(9.9 + WINDOW_S)
    assert state(health) == "suspect"
    health.expire(10.0 + WINDOW_S)
    assert (health.state, health.since) == ("ok", 10.0 + WINDOW_S)


def test_the_same_job_counts_once_and_several_quarantine() -> None:
    health = HealthState(0.0)
    for _ in range(10):
        health.record_fault(10.0, "sticky", "job-1", "why")
    assert state(health) == "suspect"
    health.record_fault(11.0, "sticky", "job-2", "why")
    health.record_fault(12.0, "driver", "job-2", "it hangs")
    assert (health.state, health.since, health.takes_work) == ("quarantined", 12.0, False)
    assert health.reason == "3 faults within 10 minutes; the last: it hangs"


def test_faults_far_apart_do_not_add_up() -> None:
    health = HealthState(0.0)
    for at in range(9):
        health.record_fault(at * WINDOW_S / 2, "sticky", f"job-{at}", "why")
        assert state(health) == "suspect"


def test_a_suspect_is_checked_at_once_and_goes_on_working() -> None:
    health = HealthState(0.0)
    assert not health.needs_check(5.0)
    health.record_fault(10.0, "sticky", "job-1", "why")
    passed(health, 10.0)
    assert (health.state, health.is_proven, health.needs_check(99.0)) == ("suspect", True, False)
    health.record_fault(20.0, "sticky", "job-2", "why")
    health.is_checking = True
    health.record_check(21.0, "a wrong result")
    assert (health.state, health.reason) == ("quarantined", "the check failed: a wrong result")


def test_a_quarantined_device_comes_back_when_a_check_passes() -> None:
    health = make_quarantined(100.0)
    assert not health.needs_check(100.0) and health.needs_check(100.0 + PAUSE_S[0])
    passed(health, 102.0)
    assert (health.state, health.since, health.reason, health.is_proven) == ("ok", 102.0, "", True)
    # What was is forgotten: it takes as much again.
    health.record_fault(103.0, "sticky", "job-9", "why")
    assert state(health) == "suspect"


def test_the_pause_grows_from_check_to_check_up_to_a_bound() -> None:
    health, now, pauses = make_quarantined(100.0), 100.0, []
    for _ in range(12):
        begin = now
        while not health.needs_check(now):
            now += 0.5
        pauses.append(now - begin)
        health.is_checking = True
        health.record_check(now, "it does not answer")
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0] and pauses[-1] == PAUSE_S[1]


def test_a_device_that_falls_ill_again_waits_longer_and_a_steady_one_begins_anew() -> None:
    health = make_quarantined(100.0)
    passed(health, 101.0)
    for at in range(FAULTS_MAX):
        health.record_fault(110.0, "driver", f"executor-{at}", "it hangs")
    assert not health.needs_check(111.0) and health.needs_check(112.0)
    passed(health, 112.0)
    health.expire(112.0 + WINDOW_S)
    for at in range(FAULTS_MAX):
        health.record_fault(900.0, "driver", f"executor-{at}", "it hangs")
    assert health.needs_check(901.0)


def test_a_program_whose_errors_a_good_device_had_is_excused_for_a_while() -> None:
    health = make_quarantined(100.0, program="buggy")
    passed(health, 101.0)
    for at in range(9):
        health.record_fault(102.0, "sticky", f"job-{at}", "why", program="buggy")
    assert state(health) == "ok"
    health.record_fault(103.0, "sticky", "job-9", "why", program="other")
    assert state(health) == "suspect"
    health.record_fault(102.0 + WINDOW_S, "sticky", "job-8", "why", program="buggy")
    assert state(health) == "suspect" and not health.is_proven


def test_where_several_programs_failed_none_is_excused() -> None:
    health = HealthState(0.0)
    for at in range(FAULTS_MAX):
        health.record_fault(100.0, "sticky", f"job-{at}", "why", program=f"program-{at}")
    passed(health, 101.0)
    health.record_fault(102.0, "sticky", "job-9", "why", program="program-0")
    assert state(health) == "suspect"


def test_a_lost_device_is_checked_only_when_it_answers_again() -> None:
    health = HealthState(0.0)
    health.record_reading(10.0, None)
    health.record_reading(11.0, "lost")
    assert (health.state, health.since, health.takes_work) == ("lost", 11.0, False)
    health.record_reading(12.0, "lost")
    health.record_fault(12.0, "sticky", "job-1", "why")
    health.quarantine(12.0, "Xid 48", needs_reset=True)
    health.record_check(12.0, None)
    assert (health.state, health.since) == ("lost", 11.0) and not health.needs_check(99.0)
    health.record_reading(100.0, None)
    assert (health.state, health.needs_reset) == ("quarantined", False), "what brought it back has reset it"
    assert health.reason == "it answers again, but the driver has lost it"
    assert not health.needs_check(100.5)
    passed(health, 102.0)
    assert state(health) == "ok"


def test_the_card_itself_may_say_that_it_is_lost() -> None:
    health = HealthState(0.0)
    health.mark_lost(10.0, "Xid 79: the GPU has fallen off the bus")
    assert (health.state, health.reason) == ("lost", "Xid 79: the GPU has fallen off the bus")


def test_a_bad_reading_is_a_fault_and_a_row_of_them_quarantines() -> None:
    health = HealthState(0.0)
    health.record_reading(10.0, "unknown error")
    assert (health.state, health.reason) == ("suspect", "it can't be read: unknown error")
    assert not health.needs_check(10.0), "what can't be read is not checked"
    health.record_reading(9.9 + UNREADABLE_S, "unknown error")
    assert state(health) == "suspect"
    health.record_reading(10.0 + UNREADABLE_S, "unknown error")
    assert (health.state, health.needs_check(99.0)) == ("quarantined", False)
    health.record_reading(30.0, "unknown error")
    assert health.since == 10.0 + UNREADABLE_S
    health.record_reading(40.0, None)
    passed(health, 40.0)
    assert state(health) == "ok"


def test_who_needs_a_reset_is_not_checked_before_somebody_says_so() -> None:
    health = HealthState(0.0)
    health.quarantine(10.0, "Xid 48: an uncorrectable memory error", needs_reset=True)
    assert (health.state, health.needs_reset, health.needs_check(9999.0)) == ("quarantined", True, False)
    health.quarantine(11.0, "Xid 74: an NVLink error")
    assert health.needs_reset
    health.resume(20.0)
    passed(health, 20.0)
    assert state(health) == "ok"


def test_a_reset_that_is_asked_for_during_a_check_is_not_forgotten() -> None:
    health = make_quarantined(100.0)
    health.is_checking = True
    health.quarantine(101.0, "Xid 48", needs_reset=True)
    health.record_check(102.0, None)
    assert (health.state, health.needs_reset) == ("quarantined", True)


def test_what_is_held_is_not_checked_until_it_is_let_go() -> None:
    health = HealthState(0.0)
    health.hold(9.0, None)
    assert state(health) == "ok"
    health.hold(10.0, "ended executors still hold 3.0 GiB")
    health.hold(11.0, "ended executors still hold 2.0 GiB")
    assert (health.state, health.since) == ("quarantined", 10.0)
    assert health.reason.endswith("2.0 GiB") and not health.needs_check(99.0)
    health.is_checking = True
    health.record_check(99.0, None)
    assert state(health) == "quarantined"
    health.hold(100.0, None)
    passed(health, 100.0)
    assert state(health) == "ok"
