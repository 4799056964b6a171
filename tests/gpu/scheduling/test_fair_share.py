from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import combinations, count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu.scheduling.fair_share import ACCOUNTS_MIN_SWEEP, UNKNOWN_JOB_S, FairShareClock


def waiting(*tenants: str, **weights: float) -> FairShareClock:
    shares = FairShareClock(weights)
    for tenant in tenants:
        shares.on_waiting(tenant)
    return shares


def test_a_single_tenant_is_not_counted() -> None:
    shares = waiting("a")
    assert not shares.has_many_tenants and shares.rank("a") == 0
    shares.record_end(1, 5.0)
    assert shares.rank("a") == 0 and not shares.has_running
    shares.on_not_waiting("a")
    shares.on_waiting("a")
    assert not shares.has_many_tenants


def test_a_start_is_charged_at_once_and_put_right_at_its_end() -> None:
    shares = waiting("a", "b", a=2.0)
    assert shares.has_many_tenants
    shares.record_start(1, "a", 1, 60.0)
    assert (shares.rank("a"), shares.rank("b")) == (30, 0)
    shares.record_end(1, 10.0)
    assert shares.rank("a") == 5


def test_a_lead_is_told_by_those_who_wait() -> None:
    shares = waiting("a", "b")
    shares.record_start(1, "a", 1, 60.0)
    assert (shares.lead_s("a"), shares.lead_s("b"), shares.lead_s("new")) == (60, 0, 0)
    shares.on_not_waiting("b")
    assert shares.lead_s("a") == 0


def test_every_device_of_a_gang_counts() -> None:
    shares = waiting("a", "b")
    shares.record_start(1, "a", 4, 10.0)
    assert shares.rank("a") == 40
    shares.record_end(1, 20.0)
    assert shares.rank("a") == 80


def test_one_that_takes_longer_is_charged_as_it_goes_on() -> None:
    shares = waiting("a", "b", a=2.0)
    shares.advance(100)
    shares.record_start(1, "a", 2, 10.0)
    shares.advance(110)
    assert shares.rank("a") == 10
    shares.advance(150)
    assert shares.rank("a") == 50
    shares.advance(140)
    assert shares.rank("a") == 50, "time never goes back"
    shares.record_start(2, "a", 1, 4.0)
    shares.record_end(1, 50.0)
    assert shares.rank("a") == 52
    shares.record_end(2, 0.0)
    assert shares.rank("a") == 50


def test_an_attempt_that_came_back_is_not_charged_for_the_one_before() -> None:
    shares = waiting("a", "b")
    shares.record_start(1, "a", 1, 10.0)
    shares.record_start(2, "a", 1, 100.0)
    shares.record_end(1, 0.0)
    shares.advance(5)
    shares.record_start(1, "a", 1, 30.0)
    shares.advance(20)
    assert shares.rank("a") == 130, "the first one's time to be late is nothing to the second"
    shares.advance(40)
    assert shares.rank("a") == 135


def test_what_nobody_knows_is_guessed_by_what_has_ended() -> None:
    shares = waiting("a", "b")
    shares.record_start(1, "a", 1, None)
    assert shares.rank("a") == UNKNOWN_JOB_S
    shares.record_end(1, 2.0)
    shares.record_start(2, "b", 1, None)
    assert shares.rank("b") == 2
    shares.record_end(2, 12.0)
    shares.record_start(3, "b", 1, None)
    assert shares.rank("b") == pytest.approx(15)


def test_who_was_away_starts_where_the_last_of_those_who_wait_is() -> None:
    shares = waiting("a", "b")
    for job_number in range(1, 4):
        shares.record_start(job_number, "a", 1, 10.0)
        shares.record_end(job_number, 10.0)
    shares.record_start(4, "b", 1, 25.0)
    shares.record_end(4, 25.0)
    shares.record_start(5, "b", 1, 25.0)
    assert shares.rank("new") == 0, "nobody has asked yet"
    shares.on_waiting("new")
    assert shares.rank("new") == 25, "promises to others are no reason to be served later"
    shares.on_not_waiting("a")
    shares.on_not_waiting("b")
    shares.record_start(6, "new", 1, 100.0)
    shares.record_end(6, 100.0)
    shares.on_waiting("a")
    assert shares.rank("a") == 125, "being away saves nothing"
    shares.on_not_waiting("new")
    shares.on_not_waiting("a")
    shares.on_waiting("a")
    assert shares.rank("a") == 125


def test_who_had_more_is_not_forgiven_for_having_been_away() -> None:
    shares = waiting("a", "b")
    shares.record_start(1, "a", 1, 60.0)
    shares.record_end(1, 60.0)
    shares.on_not_waiting("a")
    shares.on_waiting("a")
    assert shares.rank("a") == 60 and shares.rank("b") == 0


def test_a_tenant_waits_until_its_last_line_is_empty() -> None:
    shares = waiting("a", "a", "b")
    shares.on_not_waiting("a")
    shares.record_start(1, "b", 1, 10.0)
    shares.record_end(1, 10.0)
    shares.on_waiting("c")
    assert shares.rank("c") == 0, "a still waits, and has had nothing"
    shares.on_not_waiting("a")
    shares.on_waiting("d")
    assert shares.rank("d") == 0, "so does c"


def test_tenants_that_came_once_are_forgotten() -> None:
    shares = waiting("a")
    for each in range(10 * ACCOUNTS_MIN_SWEEP):
        shares.on_waiting(f"once{each}")
        shares.record_start(each, f"once{each}", 1, 1.0)
        shares.on_not_waiting(f"once{each}")
        shares.record_end(each, 1.0)
        shares.record_start(-1 - each, "a", 1, 2.0)
        shares.record_end(-1 - each, 2.0)
    assert len(shares._accounts) <= 2 * ACCOUNTS_MIN_SWEEP


def test_a_job_may_start_for_a_tenant_of_whom_nobody_waits() -> None:
    shares = waiting("a", "b")
    shares.record_start(1, "c", 1, 5.0)
    assert shares.rank("c") == 5


@dataclass
class FairShareSimulation:
    """Devices that take one job each, tenants of whom somebody always waits."""

    shares: FairShareClock
    devices: int
    now: float = 0.0
    device_s: dict[str, float] = field(default_factory=dict)
    ends: list[tuple[float, int, str, float]] = field(default_factory=list)
    numbers: count[int] = field(default_factory=lambda: count(1))

    def start_next(self, run_s: float, error: float) -> str:
        """The tenant whose turn it is gets a device, when one is free; the run was expected to be longer
        or shorter by a factor."""
        if len(self.ends) == self.devices:
            self.now, job_number, tenant, took = heappop(self.ends)
            self.shares.record_end(job_number, took)
            self.device_s[tenant] += took
        self.shares.advance(self.now)
        tenant = min(self.device_s, key=lambda each: (self.shares.rank(each), each))
        job_number = next(self.numbers)
        self.shares.record_start(job_number, tenant, 1, run_s * error)
        heappush(self.ends, (self.now + run_s, job_number, tenant, run_s))
        return tenant


LONGEST_S = 100.0
RUNS = st.lists(
    st.tuples(st.floats(0.1, LONGEST_S), st.sampled_from([0.1, 0.5, 1.0, 1.0, 2.0])),
    min_size=1,
    max_size=300,
)


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=5),
    devices=st.integers(1, 4),
    runs=RUNS,
)
def test_those_who_always_wait_have_had_alike_for_their_weights(
    weights: list[float], devices: int, runs: list[tuple[float, float]]
) -> None:
    names = [f"t{each}" for each in range(len(weights))]
    weight = dict(zip(names, weights, strict=True))
    residency = FairShareSimulation(waiting(*names, **weight), devices, device_s=dict.fromkeys(names, 0.0))
    for run_s, error in runs:
        residency.start_next(run_s, error)
        # What a place can hold that was judged wrongly, for each place and for the one that is given away.
        bound_s = 2 * (devices + 1) * LONGEST_S / min(weights)
        for one, other in combinations(names, 2):
            assert (
                abs(residency.device_s[one] / weight[one] - residency.device_s[other] / weight[other])
                <= bound_s
            )


@given(
    tenants=st.integers(2, 5),
    devices=st.integers(1, 4),
    seconds=st.lists(st.floats(0.1, LONGEST_S), min_size=60, max_size=120),
)
def test_nobody_who_waits_is_passed_over_for_ever(tenants: int, devices: int, seconds: list[float]) -> None:
    """With runs as expected a tenant's clock is never further ahead than by one run: so who waits is served
    before the others have had one run more than that each."""
    names = [f"t{each}" for each in range(tenants)]
    residency = FairShareSimulation(waiting(*names), devices, device_s=dict.fromkeys(names, 0.0))
    for run_s in seconds:
        residency.start_next(run_s, 1.0)
        ranks = [residency.shares.rank(name) for name in names]
        assert max(ranks) - min(ranks) <= LONGEST_S + 1e-6


@given(given_s=st.lists(st.floats(0.1, LONGEST_S), min_size=1, max_size=40), devices=st.integers(1, 4))
def test_a_newcomer_is_next_after_a_flood(given_s: list[float], devices: int) -> None:
    shares = waiting("flood", "other")
    residency = FairShareSimulation(shares, devices, device_s={"flood": 0.0, "other": 0.0})
    for run_s in given_s:
        residency.start_next(run_s, 1.0)
    shares.on_waiting("new")
    residency.device_s["new"] = 0.0
    turns = [residency.start_next(1.0, 1.0) for _ in range(3)]
    assert "new" in turns


class StraightforwardClock(FairShareClock):
    """Looks at all waiting tenants for the smallest settled clock."""

    def _raise_minimum(self) -> None:
        lowest = min((account.settled for account in self._waiting.values()), default=self._minimum)
        self._minimum = max(self._minimum, lowest)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["wait", "leave", "start", "end"]), st.sampled_from("abcd"), st.integers(1, 50)
        ),
        max_size=60,
    )
)
def test_the_smallest_clock_of_a_waiting_tenant_is_found_without_looking_at_all(
    events: list[tuple[str, str, int]],
) -> None:
    quick, plain = FairShareClock({"b": 2.0}), StraightforwardClock({"b": 2.0})
    backlogs, running, now = dict.fromkeys("abcd", 0), dict[int, str](), 0.0
    for number, (kind, tenant, seconds) in enumerate(events):
        now += 1.0
        for clock in (quick, plain):
            clock.advance(now)
            if kind == "wait":
                clock.on_waiting(tenant)
            elif kind == "leave" and backlogs[tenant]:
                clock.on_not_waiting(tenant)
            elif kind == "start":
                clock.record_start(number, tenant, 1, float(seconds))
            elif kind == "end" and running:
                clock.record_end(min(running), float(seconds))
        backlogs[tenant] += (kind == "wait") - (kind == "leave" and backlogs[tenant] > 0)
        if kind == "start":
            running[number] = tenant
        elif kind == "end" and running:
            del running[min(running)]
        assert [quick.rank(each) for each in "abcd"] == [plain.rank(each) for each in "abcd"]
