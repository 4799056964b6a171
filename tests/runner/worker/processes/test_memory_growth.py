"""When an executor that grows is replaced, as a table."""

from __future__ import annotations

import pytest

from runner.worker.processes.memory_growth import MemoryBaseline


@pytest.mark.parametrize(
    ("limit", "kept", "verdicts"),
    [
        (100, [10, 50, 79, 81], [False, False, False, True]),
        # Large from its first job on: that is its size, and no leak.
        (100, [85, 85, 94, 95], [False, False, False, False]),
        (100, [85, 96], [False, True]),
        # What became smaller counts from there.
        (100, [90, 70, 81], [False, False, True]),
        (0, [10, 10_000], [False, False]),
    ],
)
def test_one_that_is_nearly_full_and_has_grown_is_replaced(
    limit: int, kept: list[int], verdicts: list[bool]
) -> None:
    baseline = MemoryBaseline(limit)
    assert [baseline.is_outgrown(each) for each in kept] == verdicts
