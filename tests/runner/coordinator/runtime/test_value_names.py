"""The names of stored values: what older versions wrote is found again, and no two kinds mix."""

from __future__ import annotations

import pytest

from runner.coordinator.runtime import value_names


@pytest.mark.parametrize("queue", ["default", "a/b", "paused", "q/paused"])
def test_a_paused_queue_is_found_by_the_name_of_its_value(queue: str) -> None:
    assert value_names.queue_paused(queue) == f"queue/{queue}/paused"
    assert list(value_names.paused_queues([value_names.queue_paused(queue)])) == [queue]


def test_values_of_other_kinds_pause_no_queue() -> None:
    assert list(value_names.paused_queues(["spent/since", "queue/a", "learned/models/a/paused"])) == []


def test_the_names_are_those_of_stores_that_exist() -> None:
    assert [
        value_names.CONTEXT_OVERHEAD,
        value_names.LEARNED_MODELS,
        value_names.LEARNED_PEAKS,
        value_names.DESCRIPTIONS,
        value_names.USAGE,
        value_names.USAGE_SINCE,
        value_names.DEVICE_DRAINED,
        value_names.DEVICE_MAX_EXECUTORS,
    ] == [
        "learned/contexts",
        "learned/models/",
        "learned/peaks",
        "describe/",
        "spent/",
        "spent/since",
        "device/drained/",
        "device/max_executors/",
    ]
