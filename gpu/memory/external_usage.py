"""Pure: the bytes of one device that other programs use: growth counts at once, a fall after a delay."""

from __future__ import annotations

from collections import deque

#: A fall is ignored for this long: programs take again at once what they just freed.
WINDOW_S = 30.0  # guard: foreign-window


class ExternalUsage:
    """The largest figure of the last `window_s` seconds (0: the last figure alone)."""

    __slots__ = ("_last_at", "_maxima", "_window_s", "last_bytes")

    def __init__(self, window_s: float = WINDOW_S) -> None:
        """Start without readings, as if other programs used nothing."""
        self._window_s = window_s
        #: (when, bytes) of the figures that may still become the largest, in falling order.
        self._maxima: deque[tuple[float, int]] = deque()
        self._last_at = 0.0
        #: By the last reading alone; None where there was none.
        self.last_bytes: int | None = None

    @property
    def nbytes(self) -> int:
        """The bytes to keep free for other programs: the maximum of the window, 0 without a reading."""
        largest = self._maxima[0][1] if self._maxima else 0
        return max(largest, self.last_bytes or 0)

    def observe(self, least: int, most: int, now: float) -> None:
        """Record a reading, which bounds the figure by `least` and `most`.

        The use of some of our executors is not known exactly. The value nearest to the previous one is taken,
        and the largest at first. Otherwise every job that grows into its grant would look like another
        program.
        """
        before = self.last_bytes
        if before is not None and self._window_s > 0:
            while self._maxima and self._maxima[-1][1] <= before:
                self._maxima.pop()
            self._maxima.append((self._last_at, before))
        while self._maxima and self._maxima[0][0] < now - self._window_s:
            self._maxima.popleft()
        self._last_at = now
        self.last_bytes = max(least, most if before is None else min(most, before))

    def correct(self, least: int, most: int) -> None:
        """Correct the last reading: more, or less, of it is known to be ours."""
        if self.last_bytes is not None:
            self.last_bytes = max(least, min(most, self.last_bytes))
