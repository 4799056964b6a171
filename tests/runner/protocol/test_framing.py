"""Messages in frames of a bounded size, frames in parts."""

from __future__ import annotations

import pytest

from runner.protocol import framing
from runner.protocol.framing import FRAME_BYTES, MAX_FRAME_BYTES, PART_MAX_BYTES, WireError


@pytest.mark.parametrize(
    ("sizes", "frames"),
    [
        ([], []),
        ([0], [[0]]),
        ([4, 4, 2], [[4, 4, 2]]),
        ([4, 4, 3], [[4, 4], [3]]),
        ([11], [[11]]),
        ([1, 25, 1, 9], [[1], [25], [1, 9]]),
    ],
)
def test_messages_share_frames_up_to_the_bound(sizes: list[int], frames: list[list[int]]) -> None:
    grouped = framing.group([b"x" * size for size in sizes], 10)
    assert [[len(message) for message in frame] for frame in grouped] == frames


@pytest.mark.parametrize("size", [0, 1, PART_MAX_BYTES, PART_MAX_BYTES + 1, 3 * PART_MAX_BYTES])
def test_a_frame_is_the_same_after_it_travelled_in_parts(size: int) -> None:
    frame = framing.pack([b"a" * (size // 2), b"b" * size])
    parts = [bytes(part) for part in framing.split(frame)]
    assert all(0 < len(part) <= PART_MAX_BYTES for part in parts)
    assert framing.join(parts) == frame


def test_parts_beyond_the_bound_of_a_frame_are_refused() -> None:
    part = bytes(PART_MAX_BYTES)
    with pytest.raises(WireError, match="in 129 parts; the limit is"):
        framing.join([part] * (MAX_FRAME_BYTES // PART_MAX_BYTES + 1))
    with pytest.raises(WireError, match="0 bytes in 0 parts"):
        framing.join([])


def test_the_largest_messages_fit_into_a_frame() -> None:
    largest = framing.BATCH_INPUT_BYTES + framing.SETTING_MAX_BYTES
    assert FRAME_BYTES < framing.SETTING_MAX_BYTES < largest < MAX_FRAME_BYTES
