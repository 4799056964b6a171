"""Reasons stay known for classes at which the last plan did not look."""

from __future__ import annotations

from gpu.job_class import JobClass
from gpu.planning.actions import Plan, WaitReason
from gpu.scheduling.class_order import EXACT_CLASSES
from runner.coordinator.queue.wait_reasons import WaitReasons
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, run


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


def test_reasons_of_classes_that_left_are_forgotten() -> None:
    async def body(harness: LifecycleHarness) -> None:
        reasons = harness.queue_manager.reasons
        gone: dict[JobClass, WaitReason] = dict.fromkeys(make_classes(100), "waiting_for_memory")
        reasons.record_plan(Plan([], gone, is_partial=True))
        assert reason_of(reasons, next(iter(gone))) == "ready"

    run(body)
