"""Reasons stay known for classes at which the last plan did not look."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from gpu.job_class import JobClass
from gpu.planning.actions import Plan, WaitReason
from gpu.scheduling.class_order import EXACT_CLASSES
from runner.coordinator.queue.wait_reasons import WaitReasons
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, make_submission, run


def make_classes(count: int) -> list[JobClass]:
    return [JobClass(f"q{number}", "h", "v1", "", 50, 0, 0) for number in range(count)]


def reason_of(reasons: WaitReasons, job_class: JobClass) -> str:
    return reasons.for_class(job_class, job_class.queue)


def test_a_partial_plan_adds_and_a_whole_one_replaces() -> None:
    async def body(harness: LifecycleHarness) -> None:
        reasons, state = harness.queue_manager.reasons, harness.scheduler_state
        first, second, *others = make_classes(EXACT_CLASSES + 2)
        for number, job_class in enumerate((first, second, *others)):
            state.add_waiting(job_class, number + 1)
        held: dict[JobClass, WaitReason] = {first: "waiting_for_memory"}
        reasons.record_plan(Plan([], held, is_partial=True))
        reasons.record_plan(Plan([], {second: "concurrency_limit"}, is_partial=True))
        assert reason_of(reasons, first) == "waiting_for_memory"
        assert reason_of(reasons, second) == "concurrency_limit"
        state.set_device_open("cpu", False)
        assert reason_of(reasons, others[0]) == "waiting_for_device", "no plan looked at it"
        reasons.record_plan(Plan([], {}))
        for number in range(len(others)):
            state.remove_waiting(others[number], number + 3)
        assert reason_of(reasons, first) == "ready"

    run(body)


class CountedReasons(WaitReasons):
    """Reasons that count the classes for which they are asked."""

    asked = 0

    def for_class(
        self, job_class: JobClass | None, queue: str, known: dict[Hashable, str] | None = None
    ) -> str:
        self.asked += 1
        return super().for_class(job_class, queue, known)


def test_the_jobs_of_one_queue_are_counted_without_those_of_others() -> None:
    async def body(harness: LifecycleHarness) -> None:
        manager = harness.queue_manager
        manager.reasons = reasons = CountedReasons(
            scheduler_state=harness.scheduler_state, handlers=manager.handlers, clock=harness.clock
        )
        for number in range(5):
            harness.lifecycle.submit(make_submission(number, queue=f"q{number}", tenant=f"t{number}"))
            harness.lifecycle.submit(make_submission(100 + number, queue=f"q{number}", delay_s=9.0))
        assert [entry[:3] for entry in manager.counts_by_reason("q3")] == [
            ("q3", "ready", 1),
            ("q3", "scheduled", 1),
        ]
        assert reasons.asked == 1
        assert len(list(manager.counts_by_reason())) == 10

    run(body)


def test_equal_classes_of_many_tenants_are_examined_once() -> None:
    async def body(harness: LifecycleHarness) -> None:
        reasons, state = harness.queue_manager.reasons, harness.scheduler_state
        classes = [replace(each, tenant=each.queue) for each in make_classes(EXACT_CLASSES + 50)]
        for number, job_class in enumerate(classes):
            state.add_waiting(job_class, number + 1)
        state.set_device_open("cpu", False)
        reasons.record_plan(Plan([], {}, is_partial=True))
        known: dict[Hashable, str] = {}
        found = {reasons.for_class(each, each.queue, known) for each in classes}
        assert found == {"waiting_for_device"} == set(known.values()) and len(known) == 1

    run(body)


def test_reasons_of_classes_that_left_are_forgotten() -> None:
    async def body(harness: LifecycleHarness) -> None:
        reasons = harness.queue_manager.reasons
        gone: dict[JobClass, WaitReason] = dict.fromkeys(make_classes(100), "waiting_for_memory")
        reasons.record_plan(Plan([], gone, is_partial=True))
        assert reason_of(reasons, next(iter(gone))) == "ready"

    run(body)
