"""Effect: loads and unloads executors for fronts."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.dispatch.prewarm_request import PrewarmFailure
from runner.coordinator.observability.resources import ResourceViews
from runner.coordinator.reload.handler_activator import HandlerActivator
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.coordinator.runtime.requester import Requester
from runner.coordinator.runtime.submission_gate import SubmissionGate
from runner.errors import NotLoaded
from runner.protocol import front as front_protocol

_json = msgspec.json.Encoder().encode


class PrewarmRequests:
    """Answers `runner load` and `runner unload`, one method per request type.

    `executor_document` builds the document of an executor from its number.
    """

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        plan_trigger: PlanTrigger,
        resource_views: ResourceViews,
        handler_activator: HandlerActivator,
        gate: SubmissionGate,
    ) -> None:
        self._dispatcher = dispatcher
        self._plan_trigger = plan_trigger
        self._resource_views = resource_views
        self._handler_activator = handler_activator
        self._gate = gate

    async def load(self, front: Requester, request: front_protocol.LoadHandler) -> None:
        """Load an executor, and reply when it is ready, or with its progress after `wait_s`.

        Replies 200 if it is loaded, 202 if it is loading or waiting for capacity.

        Raises:
            NotLoaded: the load has failed.
            RunnerError: the handler is unknown or broken, or no device could ever fit it.
            ShuttingDown: no executor is loaded any more.
        """
        self._gate.check_open()
        await self._handler_activator.wait_for_handler(request.name)
        result: asyncio.Future[ExecutorHandle | PrewarmFailure] = asyncio.get_running_loop().create_future()

        def on_result(what: ExecutorHandle | PrewarmFailure) -> None:
            if not result.done():
                result.set_result(what)

        self._dispatcher.prewarming.load(request.name, request.model, request.device, on_result)
        # The planning cycle is next: the progress is known after it.
        await asyncio.sleep(0)
        await asyncio.wait([result], timeout=request.wait_s)
        if not result.done():
            document = self._progress_document(request)
        elif isinstance(outcome := result.result(), PrewarmFailure):
            message = f"{request.name} could not be loaded: {outcome.code}: {outcome.message}"
            raise NotLoaded(message, error=outcome.error)
        else:
            message = f"loaded on {', '.join(outcome.devices)}"
            document = {
                "state": "loaded",
                "executor": self._resource_views.executor_document(outcome.number),
                "message": message,
            }
        status = 200 if document["state"] == "loaded" else 202
        front.send(
            front_protocol.encode(
                front_protocol.Reply(request.request_id, status, _json(_target_fields(request) | document))
            )
        )

    async def unload(self, front: Requester, request: front_protocol.UnloadHandler) -> None:
        """Unload executors and fail pending loads of them; reply with the executors that close.

        Executors that run attempts finish them first. Replies 202 if any closes, else 200.
        """
        self._gate.check_open()
        await self._handler_activator.wait_for_handler(request.name)
        executors = self._dispatcher.prewarming.unload(request.name, request.model, request.device)
        for executor in executors:
            self._dispatcher.control.retire(executor)
        document = _target_fields(request) | {
            "executors": [self._resource_views.executor_document(executor.number) for executor in executors]
        }
        self._plan_trigger.wake()
        front.send(
            front_protocol.encode(
                front_protocol.Reply(request.request_id, 202 if executors else 200, _json(document))
            )
        )

    def _progress_document(self, request: front_protocol.LoadHandler) -> dict[str, Any]:
        """The progress of a request: an executor is loading, or the request waits for capacity."""
        pending = self._dispatcher.prewarming.pending
        for pending_request in pending.of_handler(request.name, request.model or ""):
            if pending_request.device_id == request.device and not pending_request.is_preload:
                leaving = [
                    self._resource_views.executor_document(each)
                    for each in pending.closing_executors(pending_request)
                ]
                return {"state": "waiting", "executor": None, "leaving": leaving} | pending.explain(
                    pending_request
                )
        loading = [
            executor
            for executor in self._dispatcher.executors.of_handler(request.name)
            if executor.model == (request.model or "")
            and not executor.is_closing
            and request.device in (None, *executor.devices)
        ]
        if not loading:
            return {"state": "waiting", "executor": None, "leaving": [], "message": "waiting for its turn"}
        executor = loading[0]
        message = f"loading on {', '.join(executor.devices)}"
        return {
            "state": "loading",
            "executor": self._resource_views.executor_document(executor.number),
            "message": message,
        }


def _target_fields(request: front_protocol.LoadHandler | front_protocol.UnloadHandler) -> dict[str, Any]:
    """The fields that name what was requested; they come first in the reply."""
    return {"handler": request.name, "model": request.model, "device": request.device}
