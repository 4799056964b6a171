"""Effect: takes the handlers in anew while the server runs, one reload at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.reload.changes import Changes, compare
from runner.coordinator.runtime.submission_gate import SubmissionGate, shutting_down
from runner.discovery.handler_registry import HandlerRegistry
from runner.errors import RefusedStart, ReloadRefused, RunnerError
from runner.handlers.overrides import Overrides
from runner.handlers.spec import HandlerSpec
from runner.protocol import front as front_protocol

log = logging.getLogger(__name__)

#: Who asked is answered after so long, while the descriptions go on.
ANSWER_S = 60.0


class Retire(Protocol):
    """What is done with the executors of a handler that is another now."""

    def __call__(self, handler: str, *, replaced: bool) -> None:
        """They go; where it is `replaced`, those that still load are not waited for."""


class Asker(Protocol):
    """Who asked, to be answered."""

    def send(self, message: bytes) -> None:
        """An encoded message."""


class Reloads:
    """Describes the handlers anew, puts the new ones in force, and replaces the executors of old ones."""

    def __init__(
        self,
        *,
        plugins: HandlerRegistry,
        waiting: QueueManager,
        retire: Retire,
        read_overrides: Callable[[], Overrides],
        put_in_force: Callable[[Overrides], None],
        gate: SubmissionGate,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._plugins = plugins
        self._waiting = waiting
        self._retire = retire
        self._read_overrides = read_overrides
        self._put_in_force = put_in_force
        self._gate = gate
        self._answer_s = answer_s
        self._now: asyncio.Task[Changes] | None = None
        self._next: asyncio.Task[Changes] | None = None

    def ask(self) -> asyncio.Task[Changes]:
        """A reload that begins after this call: one that is under way may have read the files already. All
        who ask while one is under way share the next."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._after(self._now))
            self._next.add_done_callback(_look_at)
        return self._next

    async def answer(self, front: Asker, ask: front_protocol.ReloadHandlers) -> None:
        """Reload for who asks, and say what has changed."""
        self._gate.check_open()
        task = self.ask()
        await asyncio.wait([task], timeout=self._answer_s)
        if task.cancelled():
            raise shutting_down()
        status, changes = (200, task.result()) if task.done() else (202, Changes(describing=True))
        front.send(
            front_protocol.encode(front_protocol.Reply(ask.request_id, status, msgspec.json.encode(changes)))
        )

    def close(self) -> None:
        """Give up what is under way."""
        for task in (self._now, self._next):
            if task is not None:
                task.cancel()

    async def _after(self, other: asyncio.Task[Changes] | None) -> Changes:
        if other is not None:
            await asyncio.wait([other])
        self._now, self._next = self._next, None
        try:
            overrides = await asyncio.to_thread(self._read_overrides)
            touched = await self._plugins.reload()
        except RefusedStart as refused:
            log.error("the handlers are left as they were: %s", refused.message)
            raise ReloadRefused(refused.message) from refused
        self._gate.check_open()
        # From here to the end nothing else runs: no plan sees half of it.
        before = self._waiting.handlers.specs
        self._put_in_force(overrides)
        changes = compare(before, self._waiting.handlers.specs, touched)
        for name in changes.changed:
            self._retire(name, replaced=True)
        for name in (*changes.removed, *changes.broken):
            self._retire(name, replaced=False)
        self._tell(changes, before)
        return changes

    def _tell(self, changes: Changes, before: Mapping[str, HandlerSpec]) -> None:
        specs = self._waiting.handlers.specs
        # What is as broken as before was told before.
        newly_broken = [name for name in changes.broken if specs[name] != before.get(name)]
        is_news = changes.added or changes.changed or changes.removed
        level = logging.WARNING if newly_broken else logging.INFO if is_news else logging.DEBUG
        why = "".join(f"; {name}: {_last_line(specs[name].error)}" for name in newly_broken[:3])
        log.log(level, "handlers reloaded: %s%s", changes.words(), why)


def _look_at(task: asyncio.Task[Changes]) -> None:
    """Nobody may wait for it any more: what went wrong is logged all the same."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, RunnerError):
        log.error("a reload of the handlers failed", exc_info=error)


def _last_line(error: str) -> str:
    return error.strip().rpartition("\n")[2]
