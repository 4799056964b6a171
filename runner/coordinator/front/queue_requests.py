"""Effect: pauses and resumes queues for fronts."""

from __future__ import annotations

import msgspec

from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.observability.queue_documents import QueueDocuments
from runner.coordinator.processes.front_pool import FrontHandle
from runner.coordinator.runtime import value_names
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.coordinator.runtime.value_store import ValueStore
from runner.protocol import front as front_protocol

_encode = front_protocol.encode
_json = msgspec.json.Encoder().encode


class QueueRequests:
    """Pauses and resumes queues; replies once the change is durable."""

    def __init__(
        self,
        *,
        lifecycle: JobLifecycle,
        plan_trigger: PlanTrigger,
        values: ValueStore,
        queues: QueueDocuments,
    ) -> None:
        self._lifecycle = lifecycle
        self._plan_trigger = plan_trigger
        #: Holds which queues are paused.
        self._values = values
        self._queues = queues

    async def set_queue(self, front: FrontHandle, request: front_protocol.SetQueue) -> None:
        """Pause or resume a queue; reply with its document.

        Running attempts of a paused queue are not stopped.

        Raises:
            NotFound: there is no such queue, and the request does not create it.
            TooManyNames: as many queues as there may be are paused.
        """
        paused = self._lifecycle.scheduler_state.backlog.paused
        if not request.may_create:
            self._queues.require(request.name)
        if request.paused and request.name not in paused:
            self._lifecycle.registry.names.require_queue_room(request.name, len(paused))
        self._lifecycle.scheduler_state.backlog.pause_queue(request.name, request.paused)
        self._values.put(value_names.queue_paused(request.name), b"true" if request.paused else None)
        self._plan_trigger.wake()
        await self._lifecycle.journal.flush()
        front.send(
            _encode(front_protocol.Reply(request.request_id, 200, _json(self._queues.build(request.name))))
        )
