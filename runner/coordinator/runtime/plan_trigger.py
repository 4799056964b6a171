"""Effect: requests for planning cycles, which the event loop runs one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class PlanTrigger:
    """Passes requests for a planning cycle to the dispatcher, which runs the cycles."""

    def __init__(self) -> None:
        self._run_cycle: Callable[[], None] | None = None
        #: A cycle is scheduled in the event loop already.
        self._is_cycle_due = False

    def connect(self, run_cycle: Callable[[], None]) -> None:
        """Set the function that runs a cycle. Until then requests have no effect."""
        self._run_cycle = run_cycle

    def wake(self) -> None:
        """Request a cycle; any number of requests leads to one cycle per iteration of the event loop."""
        if not self._is_cycle_due:
            self._is_cycle_due = True
            asyncio.get_running_loop().call_soon(self._run_due_cycle)

    def _run_due_cycle(self) -> None:
        # Cleared first: a request made by the cycle itself leads to another one.
        self._is_cycle_due = False
        if self._run_cycle is not None:
            self._run_cycle()
