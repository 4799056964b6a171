"""Effect: tasks that run in the background, awaited by no other code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from runner.processes.restart_backoff import RestartBackoff

log = logging.getLogger(__name__)

#: Shortest and longest pause before a task that failed is started again.
RESTART_PAUSES_S = (1.0, 60.0)
#: A task that ran for longer than this is restarted after the shortest pause again.
STABLE_S = 120.0


class BackgroundTasks:
    """Keeps running tasks alive: the event loop itself holds only weak references to them."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine as a task of its own."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def start_supervised(
        self,
        name: str,
        work: Callable[[], Coroutine[Any, Any, None]],
        *,
        pauses_s: tuple[float, float] = RESTART_PAUSES_S,
    ) -> None:
        """Run `work()` as a task of its own, and again after a pause each time it raises.

        `name` is for the log. `pauses_s` are the shortest and the longest pause; each is twice as long as the
        one before. A work that returns is done.
        """
        self.start(_supervise(name, work, pauses_s))

    async def cancel_all(self) -> None:
        """Cancel every task that still runs and wait until all of them have ended."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _supervise(
    name: str, work: Callable[[], Coroutine[Any, Any, None]], pauses_s: tuple[float, float]
) -> None:
    loop = asyncio.get_running_loop()
    backoff = RestartBackoff(first_pause_s=pauses_s[0], max_pause_s=pauses_s[1])
    while True:
        started_mono = loop.time()
        try:
            return await work()
        except Exception:
            # The task's boundary: without it the task would be missing until the next start of the server.
            if loop.time() - started_mono > STABLE_S:
                backoff.reset()
            pause_s = backoff.begin_pause(loop.time())
            log.exception("the background task %r failed; it starts again in %g s", name, pause_s)
        await asyncio.sleep(pause_s)
