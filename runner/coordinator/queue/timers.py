"""Effect: timed callbacks, all on one timer of the event loop."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable

from runner.coordinator.runtime.clock import Clock

log = logging.getLogger(__name__)

#: Due times are checked at least this often: the loop's own clock stops while the machine is suspended.
CHECK_INTERVAL_S = 10.0


class Timers:
    """A heap of due times, which runs its callbacks on the event loop.

    Entries are not cancelled: a callback checks whether it is still needed. A callback that raises is logged
    and does not stop the others.
    """

    def __init__(self, clock: Clock, *, check_interval_s: float = CHECK_INTERVAL_S) -> None:
        self._clock = clock
        self._check_interval_s = check_interval_s
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._tie_breakers = itertools.count()
        self._handle: asyncio.TimerHandle | None = None
        self._armed_at = float("inf")

    def call_at(self, at: float, callback: Callable[[], None]) -> None:
        """Call at `at` (UTC epoch seconds of the clock), or in the next iteration if that is past.

        Callbacks with the same due time run in the order in which they were added.
        """
        heapq.heappush(self._heap, (at, next(self._tie_breakers), callback))
        if at < self._armed_at:
            self._arm_timer()

    def close(self) -> None:
        """Drop all callbacks."""
        if self._handle is not None:
            self._handle.cancel()
        self._heap.clear()

    def _arm_timer(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._armed_at = float("inf")
        if self._heap:
            self._armed_at = self._heap[0][0]
            delay = max(0.0, self._armed_at - self._clock.now())
            self._handle = asyncio.get_running_loop().call_later(
                min(delay, self._check_interval_s), self._run_due
            )

    def _run_due(self) -> None:
        """Run the callbacks that are due, at most 1,000, and set the timer for the next one."""
        self._handle = None
        now = self._clock.now()
        # A bounded number per iteration: a million jobs that become ready at once must not block the loop.
        for _ in range(1_000):
            if not self._heap or self._heap[0][0] > now:
                break
            callback = heapq.heappop(self._heap)[2]
            try:
                callback()
            except Exception:
                # The loop's boundary: without the next timer nothing delayed would ever start.
                log.exception("timer callback failed")
        self._arm_timer()
