"""What the commands to a worker hold."""

from __future__ import annotations

import pytest

from runner.coordinator.dispatch.commands import ATTEMPT_OVERHEAD_BYTES, batch_length, split_attempts
from runner.protocol.framing import BATCH_INPUT_BYTES, FRAME_BYTES
from runner.protocol.worker import AttemptSpec

HALF = BATCH_INPUT_BYTES // 2


@pytest.mark.parametrize(
    ("input_bytes", "count"),
    [
        ([], 0),
        ([2 * BATCH_INPUT_BYTES], 1),
        ([HALF, HALF], 2),
        ([HALF, HALF, 1, 1], 2),
        ([1, 2 * BATCH_INPUT_BYTES, 1], 1),
    ],
)
def test_a_batch_is_cut_where_its_inputs_exceed_the_bound(input_bytes: list[int], count: int) -> None:
    assert batch_length(input_bytes) == count


def test_attempts_are_split_in_order_into_messages_that_fit_into_a_frame() -> None:
    whole = FRAME_BYTES - ATTEMPT_OVERHEAD_BYTES
    sizes = [1, whole, 2 * whole, whole // 2, whole // 4, whole // 2]
    attempts = [AttemptSpec(str(at), 1, "h", bytes(size)) for at, size in enumerate(sizes)]
    parts = split_attempts(attempts)
    assert [[attempt.job_id for attempt in part] for part in parts] == [
        ["0"],
        ["1"],
        ["2"],
        ["3", "4"],
        ["5"],
    ]
    assert split_attempts([]) == []
