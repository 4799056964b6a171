"""Effect: reloads the handlers while the server runs, one reload at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.reload.changes import ReloadResult, compare_handlers
from runner.coordinator.reload.handler_activator import HandlerActivator
from runner.coordinator.runtime.requester import Requester
from runner.coordinator.runtime.submission_gate import SubmissionGate, shutting_down_error
from runner.discovery.handler_registry import HandlerRegistry
from runner.errors import RefusedStart, ReloadRefused, RunnerError
from runner.handlers.overrides import Overrides
from runner.handlers.spec import HandlerSpec
from runner.protocol import front as front_protocol

log = logging.getLogger(__name__)

#: A request is answered after this time, while the descriptions go on.
REPLY_WAIT_S = 60.0


class RetireExecutors(Protocol):
    """Retires the executors of a changed handler."""

    def __call__(self, handler: str, *, is_replaced: bool) -> None:
        """Retire them; with `is_replaced`, executors that are still loading are killed."""


class HandlerReloader:
    """Describes the handlers again, activates the new ones, and replaces the executors of changed ones.

    Attempts that run finish on the code that they started with.
    """

    def __init__(
        self,
        *,
        handler_registry: HandlerRegistry,
        handler_activator: HandlerActivator,
        queue_manager: QueueManager,
        retire: RetireExecutors,
        read_overrides: Callable[[], Overrides],
        gate: SubmissionGate,
        reply_wait_s: float = REPLY_WAIT_S,
    ) -> None:
        self._handler_registry = handler_registry
        self._handler_activator = handler_activator
        self._queue_manager = queue_manager
        self._retire = retire
        self._read_overrides = read_overrides
        self._gate = gate
        self._reply_wait_s = reply_wait_s
        self._current: asyncio.Task[ReloadResult] | None = None
        self._next: asyncio.Task[ReloadResult] | None = None

    def request_reload(self) -> asyncio.Task[ReloadResult]:
        """Start a reload after the current one, which may have read the files already.

        All requests during one reload share the next. The task raises ReloadRefused if the config or the
        sources are refused, and ShuttingDown if shutdown has begun.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._reload_after(self._current))
            self._next.add_done_callback(_log_reload_failure)
        return self._next

    async def handle_request(self, requester: Requester, request: front_protocol.ReloadHandlers) -> None:
        """Reload, and reply with the changes: 200, or 202 if that takes longer than `reply_wait_s`.

        Raises:
            ShuttingDown: no reload starts any more.
            ReloadRefused: the handlers stay as they were.
        """
        self._gate.check_open()
        task = self.request_reload()
        await asyncio.wait([task], timeout=self._reply_wait_s)
        if task.cancelled():
            raise shutting_down_error()
        status, changes = (200, task.result()) if task.done() else (202, ReloadResult(describing=True))
        requester.send(
            front_protocol.encode(
                front_protocol.Reply(request.request_id, status, msgspec.json.encode(changes))
            )
        )

    def close(self) -> None:
        """Cancel the reloads under way."""
        for task in (self._current, self._next):
            if task is not None:
                task.cancel()

    async def _reload_after(self, previous: asyncio.Task[ReloadResult] | None) -> ReloadResult:
        """Wait for the previous reload, describe the handlers, then apply the result in one step."""
        if previous is not None:
            await asyncio.wait([previous])
        self._current, self._next = self._next, None
        try:
            overrides = await asyncio.to_thread(self._read_overrides)
            touched = await self._handler_registry.reload()
        except RefusedStart as refused:
            log.error("reload refused, handlers unchanged: %s", refused.message)
            raise ReloadRefused(refused.message) from refused
        self._gate.check_open()
        # From here to the end nothing else runs: no plan sees a half-applied reload.
        before = self._queue_manager.handlers.specs
        self._handler_activator.replace_overrides(overrides)
        changes = compare_handlers(before, self._queue_manager.handlers.specs, touched)
        for name in changes.changed:
            self._retire(name, is_replaced=True)
        for name in (*changes.removed, *changes.broken):
            self._retire(name, is_replaced=False)
        self._log_changes(changes, before)
        return changes

    def _log_changes(self, changes: ReloadResult, before: Mapping[str, HandlerSpec]) -> None:
        specs = self._queue_manager.handlers.specs
        # Handlers that are broken in the same way as before were logged before.
        newly_broken = [name for name in changes.broken if specs[name] != before.get(name)]
        has_changes = changes.added or changes.changed or changes.removed
        level = logging.WARNING if newly_broken else logging.INFO if has_changes else logging.DEBUG
        why = "".join(f"; {name}: {_last_line(specs[name].error)}" for name in newly_broken[:3])
        log.log(level, "handlers reloaded: %s%s", changes.summary(), why)


def _log_reload_failure(task: asyncio.Task[ReloadResult]) -> None:
    """Log the failure of a reload, because no request may be waiting for it any more."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, RunnerError):
        log.error("failed to reload the handlers", exc_info=error)


def _last_line(error: str) -> str:
    return error.strip().rpartition("\n")[2]
