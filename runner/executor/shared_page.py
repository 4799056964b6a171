"""Effect: memory shared with the worker: what runs, since when, and the results that are held back."""

from __future__ import annotations

import mmap
import struct
import time

#: Bytes of the shared memory, and of its part for held frames.
SIZE = 64 * 1024
HELD_OFFSET = 64
#: Where attempts run side by side nothing is held: the bytes from there on tell when each was heard last.
SLOT_BYTES = 8
_STARTED, _STARTED_AT, _FINISHED, _ACTIVE_AT, _HELD = 0, 8, 16, 24, 32
_pack = struct.Struct("<Q").pack_into


class SharedPage:
    """Writer's side. Each number is one aligned 8-byte store; readers see old or new, never half."""

    __slots__ = ("_finished", "_held", "_memory", "_started")

    def __init__(self, memory: mmap.mmap | bytearray) -> None:
        self._memory = memory
        self._started = 0
        self._finished = 0
        self._held = 0

    def start(self, count: int = 1) -> int:
        """Called right before user code, with how many attempts it runs at once; gives the monotonic
        nanoseconds it wrote."""
        now_ns = time.monotonic_ns()
        # The times come first: who sees the new count must not see the old start beside it.
        _pack(self._memory, _STARTED_AT, now_ns)
        _pack(self._memory, _ACTIVE_AT, now_ns)
        self._started += count
        _pack(self._memory, _STARTED, self._started)
        return now_ns

    def finish(self, count: int = 1) -> None:
        """Called right after user code."""
        self._finished += count
        _pack(self._memory, _FINISHED, self._finished)

    def touch(self) -> None:
        """The handler used its context."""
        _pack(self._memory, _ACTIVE_AT, time.monotonic_ns())

    def touch_slot(self, slot_index: int) -> None:
        """The handler used the context of the attempt that has this place."""
        _pack(self._memory, HELD_OFFSET + SLOT_BYTES * slot_index, time.monotonic_ns())

    def hold_frame(self, frame: bytes | memoryview) -> bool:
        """Keep a frame that is not sent yet where the worker finds it should this process die.

        False where there is no room left.
        """
        end = self._held + len(frame)
        if HELD_OFFSET + end > SIZE:
            return False
        self._memory[HELD_OFFSET + self._held : HELD_OFFSET + end] = bytes(frame)
        # The length comes last: what it covers is whole.
        _pack(self._memory, _HELD, end)
        self._held = end
        return True

    def release_frames(self) -> None:
        """All held frames were sent."""
        if self._held:
            self._held = 0
            _pack(self._memory, _HELD, 0)
