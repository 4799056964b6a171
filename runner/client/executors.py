"""Pure: operations that load and unload a handler's executors without a job."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import quote

from runner.client.http_call import Operation, post_call, send_call
from runner.client.operations import WAIT_S, Clock

#: Added to the read timeout, in seconds: the server may have to describe the handler first.
SLACK_S = 60.0


def load(
    handler: str, model: str | None, device: str | None, *, until: float | None, clock: Clock
) -> Operation[dict[str, Any]]:
    """Load an executor; return the server's reply once it is loaded.

    `until` is a time on `clock`; None waits without a limit.

    Raises:
        NotLoaded: the load failed; `detail["error"]` says why.
        TimeoutError: the time is over; the load continues.
    """
    while True:
        remaining_s = math.inf if until is None else until - clock()
        wait = max(0, min(WAIT_S, math.ceil(min(remaining_s, WAIT_S))))
        prefer = {"Prefer": f"wait={wait}"}
        call = post_call(
            _path(handler, "load"), _target_body(model, device), headers=prefer, timeout_s=wait + SLACK_S
        )
        answer = yield from send_call(call)
        document: dict[str, Any] = answer.json()
        if answer.status == 200:
            return document
        if until is not None and clock() >= until:
            raise TimeoutError(f"timed out waiting for {handler} to load: {document['message']}")


def unload(handler: str, model: str | None, device: str | None) -> Operation[dict[str, Any]]:
    """Unload executors; return the server's reply, which lists them."""
    answer = yield from send_call(
        post_call(_path(handler, "unload"), _target_body(model, device), timeout_s=SLACK_S)
    )
    document: dict[str, Any] = answer.json()
    return document


def _target_body(model: str | None, device: str | None) -> dict[str, str]:
    named = {"model": model, "device": device}
    return {name: value for name, value in named.items() if value is not None}


def _path(handler: str, verb: str) -> str:
    return f"/v1/handlers/{quote(handler, safe='')}/{verb}"
