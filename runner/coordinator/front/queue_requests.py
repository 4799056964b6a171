"""Effect: pauses and resumes queues for fronts."""

from __future__ import annotations

import msgspec

from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.observability.queue_documents import QueueDocuments
from runner.coordinator.processes.front_pool import FrontHandle
from runner.coordinator.runtime import value_names
from runner.protocol import front as front_protocol

_encode = front_protocol.encode
_json = msgspec.json.Encoder().encode


class QueueRequests:
    """Replies once the change is durable."""

    def __init__(self, *, lifecycle: JobLifecycle, dispatcher: Dispatcher, queues: QueueDocuments) -> None:
        self._lifecycle = lifecycle
        self._dispatcher = dispatcher
        self._queues = queues

    async def set_queue(self, front: FrontHandle, request: front_protocol.SetQueue) -> None:
        """Pause or resume a queue."""
        self._lifecycle.scheduler_state.backlog.pause_queue(request.name, request.paused)
        self._lifecycle.journal.set_value(
            value_names.queue_paused(request.name), b"true" if request.paused else None
        )
        self._dispatcher.wake()
        await self._lifecycle.journal.flush()
        front.send(
            _encode(front_protocol.Reply(request.request_id, 200, _json(self._queues.build(request.name))))
        )
