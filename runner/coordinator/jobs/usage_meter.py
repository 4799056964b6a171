"""Pure: how long an executor was at work for each of its attempts."""

from __future__ import annotations


class Meter:
    """One executor's time. Attempts that are there at once share it, so that together they are told no more
    than what has passed. Moments are seconds of one clock; one before the last is taken for the last."""

    __slots__ = ("_active", "_at", "_each_s")

    def __init__(self) -> None:
        self._at = 0.0
        self._active = 0
        #: What an attempt would have had that was there from the beginning.
        self._each_s = 0.0

    def begin(self, at: float) -> float:
        """An attempt begins; gives what `end` wants to know."""
        self._advance(at)
        self._active += 1
        return self._each_s

    def end(self, at: float, begun: float) -> float:
        """It has ended; gives its seconds."""
        self._advance(at)
        self._active -= 1
        return self._each_s - begun

    def _advance(self, at: float) -> None:
        if at <= self._at:
            return
        if self._active:
            self._each_s += (at - self._at) / self._active
        self._at = at
