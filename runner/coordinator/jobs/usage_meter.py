"""Pure: how long an executor was in use for each of its attempts."""

from __future__ import annotations


class UsageMeter:
    """Divides one executor's time equally between concurrent attempts, so that the sum of their shares is the
    time that has passed. Times are seconds of one clock; a time before the last one counts as the last."""

    __slots__ = ("_active_attempts", "_last_at", "_share_s")

    def __init__(self) -> None:
        self._last_at = 0.0
        self._active_attempts = 0
        #: The share of an attempt that has run since the beginning.
        self._share_s = 0.0

    def start_attempt(self, at: float) -> float:
        """Start an attempt; returns the reading that `end_attempt` takes."""
        self._advance(at)
        self._active_attempts += 1
        return self._share_s

    def end_attempt(self, at: float, start_reading_s: float) -> float:
        """End an attempt; returns its seconds."""
        self._advance(at)
        self._active_attempts -= 1
        return self._share_s - start_reading_s

    def _advance(self, at: float) -> None:
        if at <= self._last_at:
            return
        if self._active_attempts:
            self._share_s += (at - self._last_at) / self._active_attempts
        self._last_at = at
