"""Effect: POST /v1/tickets, for clients of streams that can't send the token."""

from __future__ import annotations

import re
import time

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.http.body import read_optional_object
from api.http.problems import JsonTextResponse, fault, raise_invalid, reply_response
from api.http.query_params import allow_query
from api.http.tickets import TICKET_S, Tickets
from api.routes.state import FrontState
from runner.formats.timestamps import format_rfc3339
from runner.protocol import front as front_protocol

_JOB_ID = re.compile(r"[0-9a-f-]{36}")


class TicketRoutes:
    """Issues tickets to clients that have the token."""

    def __init__(self, front: FrontState, tickets: Tickets) -> None:
        self._front = front
        self._tickets = tickets

    async def issue(self, request: Request) -> Response:
        """Issue a ticket for a job's stream, or for all streams, to pass as `?ticket=`."""
        allow_query(request)
        config = self._front.config
        body = await read_optional_object(
            request, max_bytes=config.body_max_bytes, depth_max=config.depth_max
        )
        job_id = body.pop("job_id", None)
        faults = [fault(f"/{key[:100]}", "there is no such field") for key in body]
        if job_id is not None and not (isinstance(job_id, str) and _JOB_ID.fullmatch(job_id)):
            faults.append(fault("/job_id", "must be the id of a job"))
        if faults:
            raise_invalid(faults)
        if job_id is not None:
            found = await self._front.coordinator.send_request(front_protocol.ReadEvents(0, job_id, 0, 1))
            if isinstance(found, front_protocol.Reply):
                return reply_response(found)
        until = int(time.time()) + TICKET_S
        ticket = self._tickets.issue(until, job_id)
        url = None if job_id is None else f"/v1/jobs/{job_id}/events?ticket={ticket}"
        document = {"ticket": ticket, "expires_at": format_rfc3339(until), "url": url}
        return JsonTextResponse(msgspec.json.encode(document), 201, {"cache-control": "no-store"})
