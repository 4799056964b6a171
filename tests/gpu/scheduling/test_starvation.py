"""The oldest job of a tenant is next once so many younger ones went before it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpu.job_class import JobClass
from gpu.scheduling.class_backlog import ClassBacklog
from gpu.scheduling.overtaking import OvertakeCounter
from gpu.scheduling.starvation import OUTDATED_MAX, YOUNGER_MAX, StarvationGuard
from tests.gpu.planner_harness import G, PlannerHarness, make_class

LONG, SHORT = replace(make_class("long"), limit_s=4096.0), replace(make_class("short"), limit_s=1.0)


class StarvationHarness:
    """Lines in which jobs wait, without devices."""

    def __init__(self, **waiting: JobClass) -> None:
        self.backlogs: dict[JobClass, ClassBacklog] = {}
        self.paused: set[str] = set()
        self.overtakes = OvertakeCounter(8)
        self.guard = StarvationGuard(self.backlogs, self.paused, self.overtakes)

    def wait(self, job_class: JobClass, *job_numbers: int, first: bool = False) -> None:
        for job_number in job_numbers:
            is_new = job_class not in self.backlogs
            self.backlogs.setdefault(job_class, ClassBacklog()).add(job_number, first=first)
            if is_new:
                self.guard.on_waiting(job_class)
            if first:
                self.guard.on_requeued(job_class, job_number)

    def start(self, job_class: JobClass, *job_numbers: int) -> None:
        self.backlogs[job_class].remove_all(job_numbers)
        if not self.backlogs[job_class]:
            del self.backlogs[job_class]
            self.guard.on_not_waiting(job_class)
        self.guard.on_started(job_class, job_numbers)

    def start_younger(self, job_class: JobClass = SHORT, count: int = YOUNGER_MAX) -> None:
        """The first of them lets the oldest be looked for."""
        for job_number in range(1_000, 1_001 + count):
            self.wait(job_class, job_number)
            self.start(job_class, job_number)

    def is_next(self, job_number: int) -> bool:
        return self.overtakes.remaining(job_number) <= 0


def test_the_oldest_is_next_after_so_many_younger_ones() -> None:
    harness = StarvationHarness()
    harness.wait(LONG, 1, 2)
    harness.start_younger(count=YOUNGER_MAX - 1)
    assert not harness.is_next(1)
    harness.start_younger(count=0)
    assert harness.is_next(1) and not harness.is_next(2)
    harness.overtakes.forget([1])
    harness.start(LONG, 1)
    harness.start_younger(count=YOUNGER_MAX - 2)
    assert not harness.is_next(2)
    harness.start_younger(count=0)
    assert harness.is_next(2)


@pytest.mark.parametrize(
    "others", [replace(SHORT, tenant="other"), replace(SHORT, priority=90), replace(SHORT, gpus=0)]
)
def test_other_tenants_lanes_and_higher_priorities_do_not_count(others: JobClass) -> None:
    harness = StarvationHarness()
    harness.wait(LONG, 1)
    harness.start_younger(others, count=3 * YOUNGER_MAX)
    harness.start_younger(count=YOUNGER_MAX - 2)
    assert not harness.is_next(1)


def test_older_ones_that_were_put_back_go_first_and_do_not_count() -> None:
    harness = StarvationHarness()
    harness.wait(LONG, 5)
    harness.start_younger(count=YOUNGER_MAX - 1)
    harness.wait(SHORT, 3, first=True)
    harness.start_younger(count=YOUNGER_MAX - 1)
    assert not harness.is_next(5) and not harness.is_next(3)
    harness.start_younger(count=0)
    assert harness.is_next(3)
    harness.wait(SHORT, 7, first=True)
    harness.start(SHORT, 3)
    assert not harness.is_next(5)


def test_one_of_a_paused_queue_is_waited_for_by_nobody() -> None:
    harness = StarvationHarness()
    harness.wait(replace(LONG, queue="paused"), 1)
    harness.wait(LONG, 2)
    harness.start_younger(count=3)
    harness.paused.add("paused")
    harness.guard.on_pause_changed()
    harness.start_younger(count=YOUNGER_MAX)
    assert harness.is_next(2) and not harness.is_next(1)


def test_where_only_wishes_wait_there_is_no_oldest() -> None:
    harness = StarvationHarness()
    harness.wait(replace(LONG, priority=-1), 1)
    harness.start_younger()
    assert not harness.is_next(1)


def test_a_long_job_among_short_ones_starts_though_they_keep_coming() -> None:
    harness = PlannerHarness()
    short = replace(make_class("short", 4 * G), limit_s=1.0)
    harness.submit(short, 12)
    harness.plan_and_apply()
    (long,) = harness.submit(replace(make_class("long", 20 * G), limit_s=4096.0))
    before = len(harness.started)
    for _ in range(2 * YOUNGER_MAX):
        harness.now += 1.0
        for executor in [each.executor for each in harness.state.executors.values() if each.assigned]:
            harness.finish(executor)
            harness.submit(short)
        harness.plan_and_apply()
        harness.remove_leaving()
        if long in harness.started:
            break
    assert harness.started.index(long) - before <= YOUNGER_MAX + harness.state.overtakes.limit + 12


def test_entries_of_jobs_that_left_do_not_pile_up_behind_one_that_stays() -> None:
    harness = StarvationHarness()
    harness.wait(LONG, 1)
    harness.start_younger(count=2)
    for job_number in range(5_000, 5_000 + 10 * OUTDATED_MAX):
        harness.wait(SHORT, job_number)
        harness.start(SHORT, job_number)
        harness.overtakes.forget([1])
    sizes = [len(heap) for heap in harness.guard._first_jobs.values()]
    assert all(size <= OUTDATED_MAX + 4 for size in sizes)
    harness.start(LONG, 1)
    harness.wait(LONG, 6_000)
    harness.start_younger(count=0)
    assert harness.guard._oldest[LONG.tenant, True] == (LONG, 6_000)


def test_nothing_is_kept_of_tenants_whose_jobs_have_left() -> None:
    harness = StarvationHarness()
    for number in range(1, 100):
        mine = replace(LONG, tenant=f"t{number}")
        harness.wait(mine, number, 100 + number)
        harness.start(mine, number)
        harness.start(mine, 100 + number)
    guard = harness.guard
    kept = (guard._classes, guard._oldest, guard._younger_counts, guard._first_jobs)
    assert [len(each) for each in kept] == [0, 0, 0, 0]
