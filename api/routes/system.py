"""Effect: routes of queues, handlers, devices, workers and the server itself."""

from __future__ import annotations

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.http.body import read_json, read_optional_object
from api.http.problems import JsonTextResponse, fault, raise_invalid, reply_response
from api.http.query_params import allow_query
from api.openapi.docs import DocsPage
from api.openapi.document import VERSIONS, OpenApiDocument
from api.routes.state import FrontState
from runner.bounds import EXECUTORS_MAX
from runner.errors import Unavailable
from runner.protocol import front as front_protocol

SystemDocumentName = Literal["queues", "queue", "handlers", "handler", "devices", "workers", "stats"]
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Longest wait for a reload, in seconds; the coordinator replies within 60 s.
RELOAD_S = 60.0


class SystemRoutes:
    """Routes for operators."""

    def __init__(self, front: FrontState, document: OpenApiDocument, page: DocsPage) -> None:
        self._front = front
        self._openapi = document
        self._page = page

    async def queues(self, request: Request) -> Response:
        """List all queues with their counts."""
        return await self._get_document(request, "queues")

    async def queue(self, request: Request) -> Response:
        """Get one queue."""
        return await self._get_document(request, "queue", request.path_params["name"])

    async def pause(self, request: Request) -> Response:
        """Stop starting jobs of this queue until it is resumed; running jobs continue."""
        return await self._set_queue(request, True)

    async def resume(self, request: Request) -> Response:
        """Start jobs of this queue again."""
        return await self._set_queue(request, False)

    async def handlers(self, request: Request) -> Response:
        """List all handlers, including broken ones."""
        return await self._get_document(request, "handlers")

    async def handler(self, request: Request) -> Response:
        """Get one handler."""
        return await self._get_document(request, "handler", request.path_params["name"])

    async def reload(self, request: Request) -> Response:
        """Find and describe the handlers again, from the server's configured sources."""
        self._front.require_open()
        await self._refuse_body(request)
        reply = await self._front.send_and_wait(request, front_protocol.ReloadHandlers(0), RELOAD_S)
        assert isinstance(reply, front_protocol.Reply)
        return reply_response(reply)

    async def devices(self, request: Request) -> Response:
        """List all devices with their memory and executors."""
        return await self._get_document(request, "devices")

    async def drain(self, request: Request) -> Response:
        """Stop starting jobs on this device: running jobs finish, idle executors are unloaded."""
        return await self._set_drained(request, True)

    async def undrain(self, request: Request) -> Response:
        """Start jobs on this device again."""
        return await self._set_drained(request, False)

    async def set_device(self, request: Request) -> Response:
        """Set the limit on concurrent executors of this device; null: as configured."""
        allow_query(request)
        config = self._front.config
        body = await read_json(request, max_bytes=config.body_max_bytes, depth_max=config.depth_max)
        if not isinstance(body, dict) or "max_executors" not in body:
            raise_invalid([fault("/max_executors", "is required")])
        count = body.pop("max_executors")
        faults = [fault(f"/{key[:100]}", "there is no such field") for key in body]
        if count is None:
            count = 0
        elif type(count) is not int or not 1 <= count <= EXECUTORS_MAX:
            faults.append(fault("/max_executors", f"must be an integer from 1 to {EXECUTORS_MAX}, or null"))
        if faults:
            raise_invalid(faults)
        message = front_protocol.SetDevice(0, request.path_params["name"], max_executors=count)
        return reply_response(await self._front.coordinator.request_reply(message))

    async def workers(self, request: Request) -> Response:
        """List the worker processes."""
        return await self._get_document(request, "workers")

    async def stats(self, request: Request) -> Response:
        """Get throughput, waiting and run times, and failures."""
        return await self._get_document(request, "stats")

    async def ready(self, request: Request) -> Response:
        """Check whether the server accepts jobs; 503 with the missing parts if not."""
        allow_query(request)
        reply = await self._front.coordinator.request_reply(front_protocol.GetDocument(0, "ready"))
        if reply.status < 400:
            return reply_response(reply)
        parts = msgspec.json.decode(reply.body).get("parts", {})
        missing = [name for name, part in parts.items() if part.get("state") == "unavailable"]
        raise Unavailable(f"not ready: {', '.join(missing) or 'starting'}", parts=parts, retry_after_s=1)

    async def health(self, request: Request) -> Response:
        """Check whether this process answers; says nothing about the coordinator."""
        level = self._front.memory_level
        return JsonTextResponse(
            b'{"status":"ok"}' if level is None else b'{"status":"ok","level":"%s"}' % level.encode()
        )

    async def metrics(self, request: Request) -> Response:
        """Get the coordinator's metrics in the Prometheus text format."""
        reply = await self._front.coordinator.request_reply(front_protocol.GetDocument(0, "metrics"))
        if reply.status >= 400:
            return reply_response(reply)
        return Response(reply.body, headers={"content-type": _METRICS_TYPE})

    async def openapi(self, request: Request) -> Response:
        """Get the OpenAPI document, with a typed path for each handler."""
        allow_query(request, "version")
        version = request.query_params.get("version", VERSIONS[0])
        if version not in VERSIONS:
            raise_invalid([fault("/version", f"must be one of {', '.join(VERSIONS)}")])
        return JsonTextResponse(self._openapi.json_text(self._front.catalog, version))

    async def docs(self, request: Request) -> Response:
        """Show the API on a page, with forms to try it."""
        return self._page.response()

    async def _get_document(
        self, request: Request, document: SystemDocumentName, subject: str | None = None
    ) -> Response:
        allow_query(request)
        return reply_response(
            await self._front.coordinator.request_reply(front_protocol.GetDocument(0, document, subject))
        )

    async def put_queue(self, request: Request) -> Response:
        """Pause or resume a queue, which is created if it does not exist."""
        allow_query(request)
        config = self._front.config
        body = await read_json(request, max_bytes=config.body_max_bytes, depth_max=config.depth_max)
        if not isinstance(body, dict):
            raise_invalid([fault("", "must be an object")])
        paused = body.pop("paused", None)
        faults = [fault(f"/{key[:100]}", "there is no such field in this version") for key in body]
        if not isinstance(paused, bool):
            faults.append(fault("/paused", "must be true or false"))
        if faults:
            raise_invalid(faults)
        message = front_protocol.SetQueue(0, request.path_params["name"], bool(paused), may_create=True)
        return reply_response(await self._front.coordinator.request_reply(message))

    async def _set_queue(self, request: Request, paused: bool) -> Response:
        await self._refuse_body(request)
        message = front_protocol.SetQueue(0, request.path_params["name"], paused)
        return reply_response(await self._front.coordinator.request_reply(message))

    async def _set_drained(self, request: Request, drained: bool) -> Response:
        await self._refuse_body(request)
        message = front_protocol.SetDevice(0, request.path_params["name"], drained)
        return reply_response(await self._front.coordinator.request_reply(message))

    async def _refuse_body(self, request: Request) -> None:
        """Raise ValidationFailed for a body other than an empty object: these requests take none."""
        allow_query(request)
        config = self._front.config
        body = await read_optional_object(
            request, max_bytes=config.body_max_bytes, depth_max=config.depth_max
        )
        if body:
            raise_invalid([fault(f"/{key[:100]}", "there is no such field") for key in body])
