"""Effect: the time that a stop may still take, which a second signal shortens."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

#: Time that is left to a stop once it is asked to hurry.
HURRIED_S = 1.0
#: Every part of a stop has at least this time, also if those before it took all of it.
PART_MIN_S = 0.1


class StopDeadline:
    """The end of a stop's time on the clock of the event loop, shared by the parts of the stop."""

    def __init__(self, timeout_s: float, hurry: asyncio.Event) -> None:
        """Begin with `timeout_s` seconds; `hurry` is set when the stop is to end as soon as possible."""
        self._at_mono = asyncio.get_running_loop().time() + timeout_s
        self._hurry = hurry
        self._is_hurried = False

    def remaining_s(self) -> float:
        """Return the seconds that a part which begins now may take."""
        now_mono = asyncio.get_running_loop().time()
        if self._hurry.is_set() and not self._is_hurried:
            self._is_hurried = True
            self._at_mono = min(self._at_mono, now_mono + HURRIED_S)
        return max(PART_MIN_S, self._at_mono - now_mono)

    async def wait(self, part: Coroutine[Any, Any, None]) -> bool:
        """Wait until a part is done; cancel the part and return False if the time is over before."""
        loop = asyncio.get_running_loop()
        until_mono = loop.time() + self.remaining_s()
        task, hurried = loop.create_task(part), loop.create_task(self._hurry.wait())
        try:
            while not task.done() and loop.time() < until_mono:
                waiting = {task} if hurried.done() else {task, hurried}
                await asyncio.wait(
                    waiting, timeout=until_mono - loop.time(), return_when=asyncio.FIRST_COMPLETED
                )
                until_mono = min(until_mono, loop.time() + self.remaining_s())
        finally:
            hurried.cancel()
        if task.done():
            task.result()
            return True
        task.cancel()
        await asyncio.wait({task})
        return False
