"""Effect: routes that load and unload handlers without a job."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.http.body import read_optional_object
from api.http.problems import Fault, fault, raise_invalid, reply_response
from api.http.query_params import allow_query, prefer_wait_s
from api.http.submission import parse_name
from api.routes.state import FrontState
from runner.bounds import NAME_CHARS_MAX
from runner.jobs.traits import CONTROL_CHARACTER
from runner.protocol import front as front_protocol

#: Longest time, in seconds, for which the coordinator waits for a handler's description.
HANDLER_WAIT_S = 30.0


def _model(value: Any) -> str:
    if not isinstance(value, str) or len(value) > NAME_CHARS_MAX or CONTROL_CHARACTER.search(value):
        what = f"at most {NAME_CHARS_MAX} characters without control characters"
        raise ValueError(f"must be the name of a model: {what}")
    return value


_RULES = {"model": _model, "device": parse_name}


class ExecutorRoutes:
    """Loading and unloading of executors without a job."""

    def __init__(self, front: FrontState) -> None:
        self._front = front

    async def load(self, request: Request) -> Response:
        """Load an executor of the handler without a job."""
        wait = prefer_wait_s(request)
        target = await self._read_target(request)
        message = front_protocol.LoadHandler(
            0, request.path_params["name"], **target, wait_s=float(wait or 0)
        )
        reply = await self._front.send_and_wait(request, message, message.wait_s + HANDLER_WAIT_S)
        assert isinstance(reply, front_protocol.Reply)
        return reply_response(reply, None if wait is None else {"preference-applied": f"wait={wait}"})

    async def unload(self, request: Request) -> Response:
        """Unload the handler's executors: idle ones now, busy ones after their current jobs."""
        target = await self._read_target(request)
        message = front_protocol.UnloadHandler(0, request.path_params["name"], **target)
        reply = await self._front.send_and_wait(request, message, HANDLER_WAIT_S)
        assert isinstance(reply, front_protocol.Reply)
        return reply_response(reply)

    async def _read_target(self, request: Request) -> dict[str, Any]:
        self._front.require_open()
        allow_query(request)
        config = self._front.config
        body = await read_optional_object(
            request, max_bytes=config.body_max_bytes, depth_max=config.depth_max
        )
        target: dict[str, Any] = {}
        faults: list[Fault] = []
        for key, value in body.items():
            rule = _RULES.get(key)
            if rule is None:
                faults.append(fault(f"/{key[:100]}", "there is no such field"))
            elif value is not None:
                try:
                    target[key] = rule(value)
                except ValueError as error:
                    faults.append(fault(f"/{key}", str(error)))
        if faults:
            raise_invalid(faults)
        return target
