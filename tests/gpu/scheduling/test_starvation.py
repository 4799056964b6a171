"""The oldest job of a tenant is next once so many younger ones went before it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpu.job_class import JobClass
from gpu.scheduling.class_backlog import ClassBacklog
from gpu.scheduling.overtaking import OvertakeCounter
from gpu.scheduling.starvation import YOUNGER_MAX, StarvationGuard
from tests.gpu.planner_harness import G, PlannerHarness, make_class

LONG, SHORT = replace(make_class("long"), limit_s=4096.0), replace(make_class("short"), limit_s=1.0)


class StarvationHarness:
    """Lines in which jobs wait, without devices."""

    def __init__(self, **waiting: JobClass) -> None:
        self.backlogs: dict[JobClass, ClassBacklog] = {}
        self.paused: set[str] = set()
        self.overtakes = OvertakeCounter(8)
        self.guard = StarvationGuard(self.backlogs, self.paused, self.overtakes)

    def wait(self, cls: JobClass, *ns: int, first: bool = False) -> None:
        for n in ns:
            self.backlogs.setdefault(cls, ClassBacklog()).add(n, first=first)
            if first:
                self.guard.on_requeued(cls, n)

    def start(self, cls: JobClass, *ns: int) -> None:
        self.backlogs[cls].remove_all(ns)
        if not self.backlogs[cls]:
            del self.backlogs[cls]
        self.guard.on_started(cls, ns)

    def start_younger(self, cls: JobClass = SHORT, count: int = YOUNGER_MAX) -> None:
        """The first of them lets the oldest be looked for."""
        for n in range(1_000, 1_001 + count):
            self.wait(cls, n)
            self.start(cls, n)

    def is_next(self, n: int) -> bool:
        return self.overtakes.remaining(n) <= 0


def test_the_oldest_is_next_after_so_many_younger_ones() -> None:
    house = StarvationHarness()
    house.wait(LONG, 1, 2)
    house.start_younger(count=YOUNGER_MAX - 1)
    assert not house.is_next(1)
    house.start_younger(count=0)
    assert house.is_next(1) and not house.is_next(2)
    house.overtakes.forget([1])
    house.start(LONG, 1)
    house.start_younger(count=YOUNGER_MAX - 2)
    assert not house.is_next(2)
    house.start_younger(count=0)
    assert house.is_next(2)


@pytest.mark.parametrize(
    "others", [replace(SHORT, tenant="other"), replace(SHORT, priority=90), replace(SHORT, gpus=0)]
)
def test_other_tenants_lanes_and_higher_priorities_do_not_count(others: JobClass) -> None:
    house = StarvationHarness()
    house.wait(LONG, 1)
    house.start_younger(others, count=3 * YOUNGER_MAX)
    house.start_younger(count=YOUNGER_MAX - 2)
    assert not house.is_next(1)


def test_older_ones_that_were_put_back_go_first_and_do_not_count() -> None:
    house = StarvationHarness()
    house.wait(LONG, 5)
    house.start_younger(count=YOUNGER_MAX - 1)
    house.wait(SHORT, 3, first=True)
    house.start_younger(count=YOUNGER_MAX - 1)
    assert not house.is_next(5) and not house.is_next(3)
    house.start_younger(count=0)
    assert house.is_next(3)
    house.wait(SHORT, 7, first=True)
    house.start(SHORT, 3)
    assert not house.is_next(5)


def test_one_of_a_paused_queue_is_waited_for_by_nobody() -> None:
    house = StarvationHarness()
    house.wait(replace(LONG, queue="paused"), 1)
    house.wait(LONG, 2)
    house.start_younger(count=3)
    house.paused.add("paused")
    house.start_younger(count=YOUNGER_MAX)
    assert house.is_next(2) and not house.is_next(1)


def test_where_only_wishes_wait_there_is_no_oldest() -> None:
    house = StarvationHarness()
    house.wait(replace(LONG, priority=-1), 1)
    house.start_younger()
    assert not house.is_next(1)


def test_a_long_job_among_short_ones_starts_though_they_keep_coming() -> None:
    rig = PlannerHarness()
    short = replace(make_class("short", 4 * G), limit_s=1.0)
    rig.submit(short, 12)
    rig.plan_and_apply()
    (long,) = rig.submit(replace(make_class("long", 20 * G), limit_s=4096.0))
    before = len(rig.started)
    for _ in range(2 * YOUNGER_MAX):
        rig.now += 1.0
        for executor in [each.executor for each in rig.state.executors.values() if each.assigned]:
            rig.finish(executor)
            rig.submit(short)
        rig.plan_and_apply()
        rig.remove_leaving()
        if long in rig.started:
            break
    assert rig.started.index(long) - before <= YOUNGER_MAX + rig.state.overtakes.limit + 12
