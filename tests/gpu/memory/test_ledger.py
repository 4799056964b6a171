from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gpu.devices.device import Device, cpu, nvidia, sim
from gpu.memory.draining import SLACK_BYTES
from gpu.memory.ledger import Ledger

G = 1 << 30
CARD = nvidia(0, "GPU-0", "card", 24 * G)


def ledger_of(*devices: Device) -> Ledger:
    ledger = Ledger()
    for device in devices or (sim(0, 24 * G),):
        ledger.add_device(device)
    return ledger


def test_a_device_is_added_once() -> None:
    ledger = ledger_of()
    with pytest.raises(ValueError, match="sim0"):
        ledger.add_device(sim(0, G))
    assert ledger.devices == [sim(0, 24 * G)] and ledger.device("sim0").total_bytes == 24 * G


def test_no_more_is_promised_than_there_is() -> None:
    ledger = ledger_of()
    assert ledger.reserve("sim0", 1, 20 * G)
    assert not ledger.reserve("sim0", 2, 5 * G)
    assert ledger.reserve("sim0", 2, 4 * G)
    assert ledger.free_bytes("sim0") == 0
    with pytest.raises(ValueError, match="executor 2"):
        ledger.reserve("sim0", 2, 0)


def test_nothing_can_always_be_promised() -> None:
    ledger = ledger_of(CARD)
    ledger.usage.record_reading("gpu0", 24 * G, 24 * G)
    assert ledger.free_bytes("gpu0") < 0
    assert ledger.reserve("gpu0", 1, 0)


def test_several_devices_promise_all_or_none() -> None:
    ledger = ledger_of(sim(0, 24 * G), sim(1, 8 * G))
    assert not ledger.reserve(("sim0", "sim1"), 1, 10 * G)
    assert ledger.free_bytes("sim0") == 24 * G
    assert ledger.reserve(("sim0", "sim1"), 1, 8 * G)
    ledger.usage.record_total(1, 20 * G)
    assert [ledger.free_bytes(each) for each in ("sim0", "sim1")] == [14 * G, -2 * G]


def test_an_idle_executor_is_charged_what_it_uses() -> None:
    ledger = ledger_of()
    ledger.reserve("sim0", 1, 10 * G)
    ledger.mark_running(1)
    ledger.mark_idle(1)
    assert ledger.charge_bytes(1) == 10 * G and ledger.usage.observed_bytes(1) is None
    ledger.usage.record_total(1, 3 * G)
    assert (ledger.charge_bytes(1), ledger.extra_bytes(1), ledger.grant_bytes(1)) == (3 * G, 7 * G, 10 * G)
    assert ledger.mark_running(1)
    assert ledger.charge_bytes(1) == 10 * G


def test_an_idle_executor_may_not_wake_into_what_others_were_promised() -> None:
    ledger = ledger_of()
    ledger.reserve("sim0", 1, 10 * G)
    ledger.mark_idle(1)
    ledger.usage.record_total(1, 3 * G)
    ledger.reserve("sim0", 2, 15 * G)
    assert not ledger.mark_running(1)
    assert ledger.charge_bytes(1) == 3 * G


def test_who_uses_more_than_promised_is_charged_that() -> None:
    ledger = ledger_of()
    ledger.reserve("sim0", 1, 10 * G)
    ledger.usage.record_total(1, 12 * G)
    assert ledger.free_bytes("sim0") == 12 * G
    ledger.usage.record_total(99, 12 * G)
    assert ledger.free_bytes("sim0") == 12 * G


def test_a_promise_is_lowered_after_a_measure_and_never_raised_by_one() -> None:
    ledger = ledger_of()
    ledger.reserve("sim0", 1, 24 * G)
    ledger.lower_grant(1, 5 * G)
    ledger.lower_grant(1, 9 * G)
    assert ledger.free_bytes("sim0") == 19 * G


@pytest.mark.parametrize("device", [sim(0, 24 * G), cpu("m", "c", 24 * G, 2)])
def test_ram_is_free_when_the_processes_are_reaped(device: Device) -> None:
    ledger = ledger_of(device)
    ledger.reserve(device.id, 1, 10 * G)
    assert ledger.draining.start(1, 0.0)
    assert ledger.free_bytes(device.id) == device.cap_bytes


def test_what_others_use_is_not_promised() -> None:
    ledger = ledger_of(CARD)
    ledger.reserve("gpu0", 1, 10 * G)
    ledger.usage.record_total(1, 2 * G)
    ledger.usage.record_reading("gpu0", 24 * G, 5 * G)
    assert ledger.usage.foreign_bytes("gpu0") == 3 * G
    assert ledger.free_bytes("gpu0") == CARD.cap_bytes - 3 * G - 10 * G


def test_without_per_process_figures_one_at_work_may_use_all_of_its_grant() -> None:
    ledger = ledger_of(CARD)
    ledger.usage.record_reading("gpu0", 24 * G, 1 * G)
    ledger.reserve("gpu0", 1, 10 * G)
    for used in (4, 11):
        ledger.usage.record_reading("gpu0", 24 * G, used * G)
        assert ledger.usage.foreign_bytes("gpu0") == 1 * G
    ledger.mark_running(1)
    ledger.usage.record_reading("gpu0", 24 * G, 13 * G)
    assert ledger.usage.foreign_bytes("gpu0") == 3 * G


def test_nobody_else_is_on_a_simulated_device() -> None:
    ledger = ledger_of()
    ledger.usage.record_reading("sim0", 24 * G, 9 * G)
    assert ledger.usage.foreign_bytes("sim0") == 0


def drained(*, seen: int | None = 8 * G, foreign: int = 1 * G) -> Ledger:
    """Executor 1 ended at 100 s on a card on which others use 1 GiB."""
    ledger = ledger_of(CARD)
    ledger.usage.record_reading("gpu0", 24 * G, foreign)
    ledger.reserve("gpu0", 1, 10 * G)
    ledger.mark_running(1)
    ledger.usage.record_reading("gpu0", 24 * G, (seen or 8 * G) + foreign, 99.0, {1: seen} if seen else None)
    assert not ledger.draining.start(1, 100.0)
    return ledger


def test_bytes_of_a_dead_one_stay_charged_until_two_readings_show_them_free() -> None:
    ledger = drained()
    assert (ledger.reserved_bytes("gpu0"), ledger.draining.pending_bytes("gpu0")) == (0, 10 * G)
    assert ledger.draining.sweep(100.1) == []
    ledger.usage.record_reading("gpu0", 24 * G, 1 * G)
    assert ledger.draining.sweep(100.5) == []
    ledger.usage.record_reading("gpu0", 24 * G, 1 * G)
    assert ledger.draining.sweep(101.0) == [1]
    assert ledger.free_bytes("gpu0") == CARD.cap_bytes - 1 * G


def test_a_dead_one_that_is_still_listed_stays_charged() -> None:
    ledger = drained()
    for _ in range(3):
        ledger.usage.record_reading("gpu0", 24 * G, 12 * G, 101.0, {1: 11 * G})
        assert ledger.draining.sweep(111.0) == []
    figures = ledger.figures("gpu0")
    assert figures.draining_bytes == figures.suspect_bytes == 11 * G
    assert ledger.draining.pending_bytes("gpu0") == 0


def test_what_others_took_meanwhile_shows_as_foreign_after_the_bound() -> None:
    ledger = drained()
    for _ in range(2):
        ledger.usage.record_reading("gpu0", 24 * G, 9 * G, named_bytes=8 * G)
    assert ledger.draining.sweep(109.9) == []
    assert ledger.draining.sweep(110.0) == [1]
    assert ledger.usage.foreign_bytes("gpu0") == 9 * G
    assert ledger.free_bytes("gpu0") == CARD.cap_bytes - 9 * G


def test_what_nobody_is_named_for_after_an_end_stays_charged_until_it_is_free() -> None:
    ledger = ledger_of(CARD)
    ledger.reserve("gpu0", 1, 10 * G)
    ledger.usage.record_reading("gpu0", 24 * G, 9 * G, 98.0, {1: 8 * G}, named_bytes=8 * G)
    # Made between its death and the word of it.
    ledger.usage.record_reading("gpu0", 24 * G, 9 * G, 99.0, {}, named_bytes=0)
    ledger.draining.start(1, 100.0)
    for _ in range(2):
        ledger.usage.record_reading("gpu0", 24 * G, 11 * G, 101.0, {}, named_bytes=2 * G)
    assert ledger.draining.sweep(120.0) == []
    figures = ledger.figures("gpu0")
    assert (figures.suspect_bytes, figures.foreign_bytes) == (10 * G, 3 * G)
    ledger.usage.record_reading("gpu0", 24 * G, 3 * G, 121.0, {}, named_bytes=2 * G)
    assert ledger.draining.sweep(121.0) == [1]


def test_without_per_process_figures_bytes_wait_until_the_device_shows_them() -> None:
    ledger = drained(seen=None, foreign=3 * G)
    for _ in range(2):
        ledger.usage.record_reading("gpu0", 24 * G, 11 * G)
    assert ledger.draining.sweep(200.0) == []
    ledger.usage.record_reading("gpu0", 24 * G, 1 * G + SLACK_BYTES)
    assert ledger.draining.sweep(200.0) == [1]


@pytest.mark.parametrize(("used", "settled"), [(9, []), (7, [1])])
def test_beside_a_neighbour_that_may_have_grown_the_total_must_fall(used: int, settled: list[int]) -> None:
    ledger = ledger_of(CARD)
    ledger.usage.record_reading("gpu0", 24 * G, 1 * G)
    for executor, nbytes in ((1, 4 * G), (2, 2 * G)):
        ledger.reserve("gpu0", executor, 8 * G)
        ledger.mark_running(executor)
        ledger.usage.record_report(executor, nbytes)
    # The second has grown by 4 GiB since it told, of which nobody can know.
    ledger.usage.record_reading("gpu0", 24 * G, 11 * G)
    ledger.draining.start(1, 0.0)
    for _ in range(2):
        ledger.usage.record_reading("gpu0", 24 * G, used * G)
    assert ledger.draining.sweep(1.0) == settled


def test_one_that_idled_is_charged_no_more_when_it_ended() -> None:
    ledger = ledger_of(CARD)
    ledger.reserve("gpu0", 1, 10 * G)
    ledger.mark_running(1)
    ledger.mark_idle(1)
    ledger.usage.record_total(1, 2 * G)
    ledger.draining.start(1, 0.0)
    ledger.usage.record_total(1, 1 * G)
    assert ledger.figures("gpu0").draining_bytes == 2 * G


def test_figures_add_up() -> None:
    ledger = ledger_of(CARD)
    ledger.reserve("gpu0", 1, 10 * G)
    ledger.usage.record_total(1, 1 * G)
    assert ledger.figures("gpu0").used_bytes == 1 * G
    ledger.usage.record_reading("gpu0", 24 * G, 2 * G)
    figures = ledger.figures("gpu0")
    assert (figures.total_bytes, figures.used_bytes, figures.foreign_bytes) == (24 * G, 2 * G, 1 * G)
    assert figures.reserved_bytes + figures.foreign_bytes + figures.free_bytes == CARD.cap_bytes


def test_a_device_rises_to_the_level_of_what_it_tells() -> None:
    ledger = ledger_of(CARD, sim(0, G))
    assert (ledger.usage.level("gpu0"), ledger.usage.level("sim0")) == ("totals", "exact")
    ledger.reserve("gpu0", 1, 10 * G)
    ledger.usage.record_reading("gpu0", 24 * G, 4 * G, 0.0, {})
    assert ledger.usage.level("gpu0") == "totals"
    ledger.usage.record_report(1, 3 * G)
    ledger.usage.record_report(1, 2 * G)
    assert (ledger.usage.level("gpu0"), ledger.usage.observed_bytes(1)) == ("reports", 2 * G)
    ledger.usage.record_reading("gpu0", 24 * G, 4 * G, 0.0, {1: 4 * G, 99: G})
    assert (ledger.usage.level("gpu0"), ledger.usage.observed_bytes(1)) == ("processes", 4 * G)
    ledger.usage.record_report(1, 3 * G)
    assert ledger.usage.observed_bytes(1) == 4 * G
    ledger.usage.record_report(99, 3 * G)


def test_with_reports_what_an_idle_one_told_is_its_own_and_the_rest_is_foreign() -> None:
    ledger = ledger_of(CARD)
    ledger.usage.record_reading("gpu0", 24 * G, 1 * G)
    ledger.reserve("gpu0", 1, 10 * G)
    ledger.mark_running(1)
    ledger.usage.record_report(1, 3 * G)
    ledger.usage.record_reading("gpu0", 24 * G, 9 * G, 1.0)
    assert ledger.usage.foreign_bytes("gpu0") == 1 * G, "it may have grown within its grant"
    ledger.mark_idle(1)
    ledger.usage.record_reading("gpu0", 24 * G, 9 * G, 2.0)
    assert ledger.usage.foreign_bytes("gpu0") == 6 * G


def test_of_others_a_fall_is_believed_slowly() -> None:
    ledger = ledger_of(CARD)
    ledger.usage.record_reading("gpu0", 24 * G, 9 * G, 0.0)
    ledger.usage.record_reading("gpu0", 24 * G, 2 * G, 20.0)
    assert ledger.usage.foreign_bytes("gpu0") == 9 * G
    ledger.usage.record_reading("gpu0", 24 * G, 2 * G, 31.0)
    assert ledger.usage.foreign_bytes("gpu0") == 2 * G


def test_what_the_driver_takes_from_the_total_counts_as_foreign() -> None:
    ledger = ledger_of(CARD)
    ledger.usage.record_reading("gpu0", 23 * G, 2 * G)
    figures = ledger.figures("gpu0")
    assert (figures.total_bytes, figures.foreign_bytes) == (24 * G, 3 * G)


def test_processes_that_are_claimed_late_are_no_strangers() -> None:
    ledger = ledger_of(CARD)
    ledger.reserve("gpu0", 1, 10 * G)
    ledger.usage.record_reading("gpu0", 24 * G, 5 * G)
    assert ledger.usage.foreign_bytes("gpu0") == 5 * G
    ledger.usage.correct_reading("gpu0", {1: 4 * G, 99: G})
    assert (ledger.usage.foreign_bytes("gpu0"), ledger.usage.observed_bytes(1)) == (1 * G, 4 * G)


def test_on_several_devices_an_executor_is_charged_where_it_uses_most() -> None:
    ledger = ledger_of(CARD, nvidia(1, "GPU-1", "card", 24 * G))
    ledger.reserve(("gpu0", "gpu1"), 1, 2 * G)
    for device_id, nbytes in (("gpu0", 5), ("gpu1", 3)):
        ledger.usage.record_reading(device_id, 24 * G, (nbytes + 1) * G, 0.0, {1: nbytes * G})
    assert ledger.charge_bytes(1) == 5 * G
    assert [ledger.usage.foreign_bytes(each) for each in ("gpu0", "gpu1")] == [G, G]
    assert (ledger.devices_of(1), ledger.devices_of(9)) == (("gpu0", "gpu1"), ())


def test_a_grant_is_raised_where_there_is_room_on_every_device() -> None:
    ledger = ledger_of(sim(0, 24 * G), sim(1, 8 * G))
    ledger.reserve(("sim0", "sim1"), 1, 4 * G)
    ledger.mark_running(1)
    assert not ledger.raise_grant(1, 9 * G)
    assert ledger.grant_bytes(1) == 4 * G
    assert ledger.raise_grant(1, 8 * G)
    assert (ledger.grant_bytes(1), ledger.free_bytes("sim1")) == (8 * G, 0)
    assert ledger.raise_grant(1, 5 * G)
    assert ledger.grant_bytes(1) == 8 * G


def test_who_took_more_than_there_is_gets_no_larger_grant() -> None:
    ledger = ledger_of(sim(0, 8 * G))
    ledger.reserve("sim0", 1, 4 * G)
    ledger.reserve("sim0", 2, 4 * G)
    ledger.usage.record_total(1, 5 * G)
    assert not ledger.raise_grant(1, 5 * G)
    assert ledger.neighbour_charges(1) == {2: 4 * G}
    assert ledger.figures("sim0").short_bytes == 1 * G


def test_a_lowered_promise_is_to_be_told() -> None:
    ledger = ledger_of()
    ledger.reserve("sim0", 1, 10 * G)
    ledger.lower_grant(1, 10 * G)
    assert ledger.lowered_grants == set()
    ledger.lower_grant(1, 9 * G)
    assert ledger.lowered_grants == {1}


def test_until_the_next_look_it_may_hold_what_a_job_held() -> None:
    ledger = ledger_of()
    ledger.reserve("sim0", 1, 10 * G)
    ledger.mark_idle(1)
    ledger.usage.assume_usage(1, 4 * G)
    assert ledger.charge_bytes(1) == 10 * G, "it was never looked at"
    ledger.usage.record_total(1, 2 * G)
    for supposed, charge in ((1, 2), (4, 4)):
        ledger.usage.assume_usage(1, supposed * G)
        assert ledger.charge_bytes(1) == charge * G
    ledger.usage.record_total(1, 1 * G)
    assert ledger.charge_bytes(1) == 1 * G


def test_what_others_have_by_the_last_reading_alone() -> None:
    ledger = ledger_of(CARD)
    assert ledger.usage.last_foreign_bytes("gpu0") == 0
    for used in (3, 1):
        ledger.usage.record_reading("gpu0", 24 * G, used * G)
    assert (ledger.usage.last_foreign_bytes("gpu0"), ledger.usage.foreign_bytes("gpu0")) == (1 * G, 3 * G)


def test_a_peak_is_told_once() -> None:
    ledger = ledger_of()
    ledger.reserve("sim0", 1, 10 * G)
    assert ledger.usage.pop_peak(1) is None
    for nbytes in (3, 7, 2):
        ledger.usage.record_total(1, nbytes * G)
    assert ledger.usage.pop_peak(1) == 7 * G
    assert ledger.usage.pop_peak(1) == 2 * G


def adds_up(ledger: Ledger, device: Device) -> bool:
    """Whether every byte is in one place."""
    f = ledger.figures(device.id)
    parts = f.headroom_bytes + f.foreign_bytes + f.reserved_bytes + f.draining_bytes + f.free_bytes
    return parts - f.short_bytes == f.total_bytes == device.total_bytes


class LateReleaseMachine(RuleBasedStateMachine):
    """A card whose processes give their bytes back late, some never, and whose readings come late, too: what
    a dead one still holds is never promised to anybody."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ledger_of(CARD)
        self.now = 0.0
        self.grants: dict[int, int] = {}
        #: What each process truly holds, also after its death, and which of them the driver still lists.
        self.held: dict[int, int] = {}
        self.listed: set[int] = set()
        self.last = 0
        #: The reading that is under way: what was held when it began.
        self.begun: dict[int, int] = {}
        self.read()

    @rule(gib=st.integers(1, 12))
    def start(self, gib: int) -> None:
        self.last += 1
        if self.ledger.reserve("gpu0", self.last, gib * G):
            self.grants[self.last], self.held[self.last] = gib * G, 0
            self.listed.add(self.last)
            self.ledger.mark_running(self.last)

    @precondition(lambda self: self.grants)
    @rule(data=st.data(), share=st.floats(0, 1))
    def fill(self, data: st.DataObject, share: float) -> None:
        executor = data.draw(st.sampled_from(sorted(self.grants)))
        self.held[executor] = max(self.held[executor], int(share * self.grants[executor]))

    @precondition(lambda self: self.grants)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        executor = data.draw(st.sampled_from(sorted(self.grants)))
        del self.grants[executor]
        self.ledger.draining.start(executor, self.now)

    @precondition(lambda self: self.held.keys() - self.grants.keys())
    @rule(data=st.data(), is_unlisted_only=st.booleans())
    def release(self, data: st.DataObject, is_unlisted_only: bool) -> None:
        executor = data.draw(st.sampled_from(sorted(self.held.keys() - self.grants.keys())))
        self.listed.discard(executor)
        if not is_unlisted_only:
            del self.held[executor]

    @rule(late_s=st.floats(0.1, 6))
    def pass_time(self, late_s: float) -> None:
        self.now += late_s
        self.read()

    def read(self) -> None:
        seen = {executor: nbytes for executor, nbytes in self.begun.items() if executor in self.listed}
        self.ledger.usage.record_reading("gpu0", 24 * G, sum(self.begun.values()), self.now, seen)
        self.ledger.draining.sweep(self.now)
        self.begun = dict(self.held)

    @invariant()
    def what_is_held_is_not_promised(self) -> None:
        dead = sum(nbytes for executor, nbytes in self.held.items() if executor not in self.grants)
        promised = sum(self.grants.values())
        assert dead + promised + max(0, self.ledger.free_bytes("gpu0")) <= CARD.total_bytes
        assert adds_up(self.ledger, CARD)


TestLateRelease = LateReleaseMachine.TestCase
TestLateRelease.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


class LedgerMachine(RuleBasedStateMachine):
    """Whatever is asked of it, the ledger promises no more than there is."""

    def __init__(self) -> None:
        super().__init__()
        self.device = nvidia(0, "GPU-0", "card", 24 * G)
        self.ledger = ledger_of(self.device)
        self.grants: dict[int, int] = {}
        self.dead: set[int] = set()
        self.now = 0.0
        self.figures = (0, 0)

    @rule(nbytes=st.integers(0, 24 * G))
    def reserve(self, nbytes: int) -> None:
        executor = len(self.grants) + len(self.dead) + 1000 * len(self.dead)
        free = self.ledger.free_bytes("gpu0")
        if executor not in self.grants and executor not in self.dead:
            assert self.ledger.reserve("gpu0", executor, nbytes) == (nbytes <= free or nbytes == 0)
            if nbytes <= free:
                self.grants[executor] = nbytes
            elif nbytes == 0:
                self.ledger.draining.settle(executor)

    @precondition(lambda self: self.grants)
    @rule(data=st.data(), share=st.floats(0, 1), act=st.sampled_from(["idle", "running", "use", "drain"]))
    def change_executor(self, data: st.DataObject, share: float, act: str) -> None:
        executor = data.draw(st.sampled_from(sorted(self.grants)))
        match act:
            case "idle":
                self.ledger.mark_idle(executor)
            case "running":
                fits = self.ledger.extra_bytes(executor) <= self.ledger.free_bytes("gpu0")
                assert self.ledger.mark_running(executor) or not fits
            case "use":
                self.ledger.usage.record_total(executor, int(share * self.grants[executor]))
            case _:
                del self.grants[executor]
                self.dead.add(executor)
                self.ledger.draining.start(executor, self.now)

    @rule(late_s=st.floats(0, 20))
    def reading(self, late_s: float) -> None:
        self.now += late_s
        ours = sum(self.ledger.usage.observed_bytes(each) or 0 for each in self.grants)
        self.ledger.usage.record_reading("gpu0", 24 * G, ours)
        self.dead -= set(self.ledger.draining.sweep(self.now))

    @invariant()
    def charges_fit(self) -> None:
        charges = sum(self.ledger.charge_bytes(each) for each in (*self.grants, *self.dead))
        reserved, figures = self.ledger.reserved_bytes("gpu0"), self.ledger.figures("gpu0")
        assert reserved + figures.draining_bytes == charges <= self.device.cap_bytes
        assert adds_up(self.ledger, self.device)

    @invariant()
    def it_tells_which_devices_changed(self) -> None:
        figures = (self.ledger.free_bytes("gpu0"), self.ledger.draining.pending_bytes("gpu0"))
        assert figures == self.figures or "gpu0" in self.ledger.changed
        self.figures = figures
        self.ledger.changed.clear()


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
