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

    def __init__(self, *, line: JobLifecycle, dispatch: Dispatcher, queues: QueueDocuments) -> None:
        self._line = line
        self._dispatch = dispatch
        self._queues = queues

    async def set_queue(self, front: FrontHandle, ask: front_protocol.SetQueue) -> None:
        """Pause or resume a queue."""
        self._line.view.backlog.pause_queue(ask.name, ask.paused)
        self._line.journal.set_value(value_names.queue_paused(ask.name), b"true" if ask.paused else None)
        self._dispatch.wake()
        await self._line.journal.flush()
        front.send(_encode(front_protocol.Reply(ask.request_id, 200, _json(self._queues.build(ask.name)))))
