"""Pure: the pauses between the starts of a child process that fails repeatedly."""

from __future__ import annotations


class RestartBackoff:
    """Truncated exponential back-off: each pause is twice as long as the one before, up to a bound.

    All times are on one monotonic clock, in seconds.
    """

    def __init__(self, *, first_pause_s: float, max_pause_s: float) -> None:
        self._first_pause_s = first_pause_s
        self._max_pause_s = max_pause_s
        self.reset()

    def reset(self) -> None:
        """End the current pause and make the next one the shortest again, as the child has worked."""
        # Doubled and bounded at each pause: 2.0 to the number of failures would overflow after 1,023 of them.
        self._next_pause_s = self._first_pause_s
        self._paused_until_mono: float | None = None

    def begin_pause(self, now_mono: float) -> float:
        """Begin the pause before the next start and return its length in seconds."""
        pause_s = self._next_pause_s
        self._paused_until_mono = now_mono + pause_s
        self._next_pause_s = min(self._max_pause_s, pause_s * 2)
        return pause_s

    def is_pausing(self, now_mono: float) -> bool:
        """Return whether the current pause lasts beyond `now_mono`."""
        return self._paused_until_mono is not None and now_mono < self._paused_until_mono
