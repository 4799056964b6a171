"""Pure: how long an executor was at work for each of its attempts."""

from __future__ import annotations


class UsageMeter:
    """One executor's time. Attempts that are there at once share it, so that together they are told no more
    than what has passed. Moments are seconds of one clock; one before the last is taken for the last."""

    __slots__ = ("_active_attempts", "_last_at", "_share_s")

    def __init__(self) -> None:
        self._last_at = 0.0
        self._active_attempts = 0
        #: What an attempt would have had that was there from the beginning.
        self._share_s = 0.0

    def start_attempt(self, at: float) -> float:
        """An attempt begins; gives what `end` wants to know."""
        self._advance(at)
        self._active_attempts += 1
        return self._share_s

    def end_attempt(self, at: float, start_reading_s: float) -> float:
        """It has ended; gives its seconds."""
        self._advance(at)
        self._active_attempts -= 1
        return self._share_s - start_reading_s

    def _advance(self, at: float) -> None:
        if at <= self._last_at:
            return
        if self._active_attempts:
            self._share_s += (at - self._last_at) / self._active_attempts
        self._last_at = at
