"""Effect: GET /v1/jobs/{job_id}/events: the live event stream of a job."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.http.connection import Connection
from api.http.problems import reply_response
from api.http.query_params import allow_query, event_types, resume_cursor
from api.routes.state import FrontState
from api.streaming.event_pages import PAGE_BYTES, CachedPage
from api.streaming.sse import JobChannel, JobEventReader, event_source_response


class EventRoutes:
    """Event streams of single jobs."""

    def __init__(self, front: FrontState) -> None:
        self._front = front

    async def stream_job(self, request: Request) -> Response:
        """Stream the job's events; 204 if the job has ended and the client has seen all of them."""
        allow_query(request, "after", "types", "ticket")
        after, types = resume_cursor(request), event_types(request)
        hub = self._front.hub
        # Subscribe before reading: events that become durable in between then arrive as job events.
        channel = hub.subscribe(request.path_params["job_id"])
        try:
            # With several readers, all of them read shared pages, and from now on none: fetch only the job.
            max_bytes = PAGE_BYTES if channel.readers == 1 and after is not None else 0
            fetched = await hub.pages.fetch(channel.job_id, after or 0, max_bytes=max_bytes)
        except BaseException:
            hub.unsubscribe(channel)
            raise
        if isinstance(fetched, CachedPage) and not (
            fetched.page.is_job_ended and after is not None and after >= fetched.page.last_seq
        ):
            reader = JobEventReader(hub, channel, fetched, after, types, has_events=max_bytes > 0)
            return _EventStream(self._front, channel, reader)
        hub.unsubscribe(channel)
        return Response(status_code=204) if isinstance(fetched, CachedPage) else reply_response(fetched)


class _EventStream(Response):
    """A streaming response that releases its channel even if it was never read."""

    def __init__(self, front: FrontState, channel: JobChannel, reader: JobEventReader) -> None:
        super().__init__()
        self._front = front
        self._channel = channel
        self._source = event_source_response(reader)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            connection = scope.get("state", {}).get("connection")
            if isinstance(connection, Connection):
                connection.shrink_send_buffer()
            await self._source(scope, receive, send)
        finally:
            self._front.hub.unsubscribe(self._channel)
