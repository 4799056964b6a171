"""Effect: memory shared with the worker: running attempts, their start times and frames not yet sent."""

from __future__ import annotations

import struct
import time

#: Bytes of the shared memory, and offset of its part for held frames.
SIZE = 64 * 1024
HELD_OFFSET = 64
#: With slots no frames are held: the bytes from that offset on hold the last activity of each slot.
SLOT_BYTES = 8
_STARTED, _STARTED_AT, _FINISHED, _ACTIVE_AT, _HELD = 0, 8, 16, 24, 32
_pack = struct.Struct("<Q").pack_into


class SharedPage:
    """The executor's side of the page; the worker only reads.

    Each number is one aligned 8-byte store: a reader sees the old or the new value, never half of one. Times
    are monotonic nanoseconds, counts are totals since the start of the process.
    """

    __slots__ = ("_finished", "_held", "_memory", "_started")

    def __init__(self, memory: memoryview | bytearray) -> None:
        self._memory = memory
        self._started = 0
        self._finished = 0
        self._held = 0

    def start(self, count: int = 1) -> int:
        """Record the start of `count` attempts that run at once; return the monotonic nanoseconds written.

        Called right before user code.
        """
        now_ns = time.monotonic_ns()
        # Times are written first: a reader of the new count must not see the old start beside it.
        _pack(self._memory, _STARTED_AT, now_ns)
        _pack(self._memory, _ACTIVE_AT, now_ns)
        self._started += count
        _pack(self._memory, _STARTED, self._started)
        return now_ns

    def finish(self, count: int = 1) -> None:
        """Record the end of user code of `count` attempts; called right after it."""
        self._finished += count
        _pack(self._memory, _FINISHED, self._finished)

    def touch(self) -> None:
        """Record that the handler used its context."""
        _pack(self._memory, _ACTIVE_AT, time.monotonic_ns())

    def touch_slot(self, slot_index: int) -> None:
        """Record that the handler used the context of the attempt in this slot."""
        _pack(self._memory, HELD_OFFSET + SLOT_BYTES * slot_index, time.monotonic_ns())

    def hold_frame(self, frame: bytes | memoryview) -> bool:
        """Keep a frame that is not sent yet where the worker finds it should this process die.

        Returns False if it does not fit.
        """
        end = self._held + len(frame)
        if HELD_OFFSET + end > SIZE:
            return False
        self._memory[HELD_OFFSET + self._held : HELD_OFFSET + end] = bytes(frame)
        # The length is written last: the bytes that it covers are complete.
        _pack(self._memory, _HELD, end)
        self._held = end
        return True

    def release_frames(self) -> None:
        """Record that all held frames were sent."""
        if self._held:
            self._held = 0
            _pack(self._memory, _HELD, 0)
