"""Effect: state shared by all routes: the coordinator, the handlers, the streams and the shutdown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.requests import Request

from api.coordinator.client import CoordinatorClient, CoordinatorReply, CoordinatorRequest
from api.coordinator.handler_catalog import HandlerCatalog
from api.http.connection import Connection
from api.streaming.sse import StreamHub
from api.validation.pool import ValidatorPool
from runner.errors import RunnerError, ShuttingDown, Unavailable
from runner.processes.child import FrontConfig
from runner.protocol import front as front_protocol

#: Seconds after `Exit` at which pending replies are abandoned, so that the exit stays within a second.
EXIT_GRACE_S = 0.5


class FrontState:
    """One front process without its HTTP server; `on_end` is called when the process must exit."""

    def __init__(self, config: FrontConfig, on_end: Callable[[], None]) -> None:
        self.config = config
        self.coordinator = CoordinatorClient(self)
        self.catalog = HandlerCatalog()
        self.validators = ValidatorPool()
        self.hub = StreamHub(self.coordinator, config.ping_s)
        #: As last reported by the coordinator; None before.
        self.memory_level: str | None = None
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        #: End of the shutdown (monotonic); None if no shutdown has begun.
        self._shutdown_deadline_mono: float | None = None

    def require_open(self) -> None:
        """Raise ShuttingDown if no new jobs are accepted."""
        if self._shutdown_deadline_mono is not None:
            remaining_s = max(1.0, self._shutdown_deadline_mono - time.monotonic())
            raise ShuttingDown("the server is shutting down; try again later", retry_after_s=remaining_s)

    async def send_and_wait(
        self, request: Request, message: CoordinatorRequest, wait_s: float
    ) -> CoordinatorReply:
        """Return the reply to a request that may wait long; stop waiting when the client disconnects.

        `wait_s` is the wait that the request itself asks for. Raises ClientGone, Unavailable.
        """
        awaited = self.coordinator.send_request(message, wait_s)
        connection = request.scope.get("state", {}).get("connection")
        if wait_s and isinstance(connection, Connection):
            answer: CoordinatorReply = await connection.while_connected(awaited)
            return answer
        return await awaited

    def on_job_events(self, message: front_protocol.JobEvents) -> None:
        """Called by the coordinator client."""
        self.hub.publish(message)

    def on_job_waiting(self, message: front_protocol.JobWaiting) -> None:
        """Called by the coordinator client."""
        self.hub.publish_waiting(message)

    def on_handlers_update(self, update: front_protocol.HandlersUpdate) -> None:
        """Called by the coordinator client."""
        self.catalog.replace(update)

    def on_memory_level(self, message: front_protocol.MemoryLevel) -> None:
        """Called by the coordinator client."""
        self.memory_level = message.level

    def on_shutdown_begun(self, deadline_s: float) -> None:
        """Called by the coordinator client: reads and streams continue, new jobs are refused."""
        if self._shutdown_deadline_mono is None:
            self._loop.call_later(deadline_s, self.hub.close)
        self._shutdown_deadline_mono = time.monotonic() + deadline_s

    def on_exit_requested(self) -> None:
        """Called by the coordinator client: finish pending responses."""
        if self._shutdown_deadline_mono is None:
            self._shutdown_deadline_mono = time.monotonic()
        self.hub.close()
        error = ShuttingDown("the server has shut down", retry_after_s=2)
        self._loop.call_later(EXIT_GRACE_S, self.coordinator.fail_pending, error)
        self._on_end()

    def on_coordinator_lost(self) -> None:
        """Called by the coordinator client, and when the lifeline ends."""
        self.fail(Unavailable("the coordinator is gone; this server is shutting down", retry_after_s=2))

    def fail(self, error: RunnerError) -> None:
        """Fail all pending requests with `error`, and exit."""
        self.coordinator.fail_pending(error)
        self.hub.close()
        self._on_end()
