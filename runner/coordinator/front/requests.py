"""Effect: passes each request of a front to its handler, and turns refusals into problem documents."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from runner.coordinator.front.replies import STORE_RETRY_S, problem_json
from runner.coordinator.processes.front_pool import FrontHandle
from runner.coordinator.runtime.background_tasks import BackgroundTasks
from runner.errors import RunnerError, StoreUnavailable
from runner.protocol import front as front_protocol

log = logging.getLogger(__name__)

#: Handles one type of request: at once, or with a coroutine if it needs the disk.
RequestHandler = Callable[[FrontHandle, Any], Coroutine[Any, Any, None] | None]


class FrontRequests:
    """Handles requests at once if possible, the others in a task each.

    `handlers` has one for each request type. An error is answered, never raised: a RunnerError with its own
    status and code, all others as an internal error that is logged.
    """

    def __init__(self, handlers: Mapping[type[Any], RequestHandler]) -> None:
        self._handlers = handlers
        self._tasks = BackgroundTasks()

    def handle(self, front: FrontHandle, request: front_protocol.ToCoordinator) -> None:
        """Handle a request, now or in a task; a refusal becomes a problem document."""
        try:
            answer = self._handlers[type(request)](front, request)
        except RunnerError as error:
            self._refuse(front, request, error)
            return
        except Exception:
            self._fail(front, request)
            return
        if answer is not None:
            self._tasks.start(self._run_guarded(front, request, answer))

    async def _run_guarded(self, front: FrontHandle, request: Any, answer: Coroutine[Any, Any, None]) -> None:
        try:
            await answer
        except RunnerError as error:
            self._refuse(front, request, error)
        except Exception:
            self._fail(front, request)

    def _fail(self, front: FrontHandle, request: Any) -> None:
        """Log an unexpected error and answer the request; other requests are not affected."""
        log.exception("failed to handle a request of a front: %s", type(request).__name__)
        self._refuse(
            front, request, RunnerError("the coordinator failed to handle this request; see its log")
        )

    def _refuse(self, front: FrontHandle, request: Any, error: RunnerError) -> None:
        """Reply with the problem document of an error, and with the seconds after which to try again."""
        unavailable_s = STORE_RETRY_S if isinstance(error, StoreUnavailable) else None
        retry_after_s = error.detail.get("retry_after_s", unavailable_s)
        front.send(
            front_protocol.encode(
                front_protocol.Reply(request.request_id, error.status, problem_json(error), retry_after_s)
            )
        )
