"""Effect: the coordinator's clock, which never jumps."""

from __future__ import annotations

import time
from typing import Protocol

#: Times of other processes are corrected only where the wall clock has drifted further than this from ours.
SKEW_S = 1.0


class Clock(Protocol):
    """Times as UTC epoch seconds that never jump."""

    def now(self) -> float:
        """UTC epoch seconds."""

    def now_mono(self) -> float:
        """Seconds on a monotonic clock that stands still while the machine is suspended."""

    def from_wall_time(self, wall: float) -> float:
        """Convert a time that another process has read from the wall clock."""


class SystemClock:
    """UTC epoch seconds that never jump: wall time at the start plus the time since, including the time
    that the machine was suspended."""

    def __init__(self) -> None:
        self._offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> float:
        """UTC epoch seconds."""
        return self._offset + time.clock_gettime(time.CLOCK_BOOTTIME)

    def now_mono(self) -> float:
        """See `Clock.now_mono`."""
        return time.monotonic()

    def from_wall_time(self, wall: float) -> float:
        """Convert a time that another process has just read from the wall clock, which may have been set
        since the start."""
        skew_s = time.time() - self.now()
        return wall - skew_s if abs(skew_s) > SKEW_S else wall
