"""Values besides jobs: what is put is read at once, and again after a restart."""

from __future__ import annotations

from runner.coordinator.storage.stored_values import StoredValues
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, run


def test_a_value_is_read_as_it_was_put_last() -> None:
    async def body(harness: LifecycleHarness) -> None:
        values = StoredValues(harness.journal, {"a/1": b"old", "a/2": b"kept", "b": b"other"})
        values.put("a/1", b"new")
        values.put("a/3", b"third")
        assert values.get("a/1") == b"new" and values.get("c") is None
        assert values.find_by_prefix("a/") == {"a/1": b"new", "a/2": b"kept", "a/3": b"third"}

    run(body)


def test_a_value_that_is_removed_is_gone_and_may_be_removed_twice() -> None:
    async def body(harness: LifecycleHarness) -> None:
        values = StoredValues(harness.journal, {"a": b"old"})
        values.put("a", None)
        values.put("a", None)
        assert values.get("a") is None and values.find_by_prefix("") == {}

    run(body)


def test_the_store_holds_the_values_after_the_commit() -> None:
    async def body(harness: LifecycleHarness) -> None:
        values = StoredValues(harness.journal, {})
        values.put("a", b"1")
        values.put("b", b"2")
        values.put("a", None)
        await harness.journal.flush()
        assert await harness.access.run_read(lambda store: store.load_values("")) == {"b": b"2"}

    run(body)
