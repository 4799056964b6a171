"""Effect: HTTP for both clients: server address, connection options and connection errors.

The environment (RUNNER_URL, RUNNER_TOKEN) is read here and nowhere else in the client.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, TypedDict

import httpx2

from runner.client.events import ProgressEvent
from runner.client.http_call import HttpCall, HttpResponse
from runner.errors import BadRequest, NoServer

DEFAULT_URL = "http://127.0.0.1:8484"
CONNECT_S = 5.0


class HttpOptions(TypedDict):
    """Arguments that both `httpx2` clients take."""

    base_url: str
    headers: dict[str, str]
    limits: httpx2.Limits
    verify: bool
    trust_env: bool


def server_url(url: str | None) -> str:
    """Return the server's URL: the one given, else RUNNER_URL, else this machine's default port.

    Raises:
        BadRequest: not an http or https URL.
    """
    chosen = (url or os.environ.get("RUNNER_URL") or DEFAULT_URL).rstrip("/")
    if not chosen.startswith(("http://", "https://")):
        raise BadRequest(f"invalid URL {chosen!r}; expected something like {DEFAULT_URL}")
    return chosen


def http_options(url: str, token: str | None) -> HttpOptions:
    """Return the connection options for `url`; `token` None means RUNNER_TOKEN."""
    secret = token or os.environ.get("RUNNER_TOKEN")
    host = httpx2.URL(url).host
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {secret}"} if secret else {},
        # Shorter than the server's keep-alive: no request is sent on a connection that is being closed.
        "limits": httpx2.Limits(max_connections=None, keepalive_expiry=3.0),
        # Plain HTTP needs no certificates, and loading them takes longer than a short job.
        "verify": url.startswith("https://"),
        # Requests to this machine must not go through a proxy named in the environment.
        "trust_env": host not in ("127.0.0.1", "localhost", "::1"),
    }


def request_options(call: HttpCall) -> dict[str, Any]:
    """Return the keyword arguments of `request` and `stream` for a call."""
    return {
        "method": call.method,
        "url": call.path,
        "params": list(call.params) or None,
        "content": call.body,
        "headers": dict(call.headers),
        "timeout": httpx2.Timeout(call.timeout_s, connect=CONNECT_S, pool=None),
    }


def read_response(response: httpx2.Response) -> HttpResponse:
    """Return a response whose body has been read completely."""
    return HttpResponse(response.status_code, response.headers, response.content)


def connection_error(error: httpx2.TransportError, url: str, call: HttpCall | None = None) -> NoServer:
    """Return the error for a failed connection, with advice.

    If `call` is a POST that may have reached the server, the text says that its outcome is unknown.
    """
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
        return NoServer(
            f"no server answers at {url}; start one with `runner serve`, "
            "or set the address by --url or RUNNER_URL"
        )
    text = f"lost the connection to {url} before the response was complete ({type(error).__name__})"
    if call is not None and call.method == "POST":
        text += "; whether the request was accepted is unknown"
    return NoServer(text)


def call_listener(fn: Callable[[ProgressEvent], object], event: ProgressEvent, log: logging.Logger) -> None:
    """Call a progress callback; an exception of it is logged with the job's id."""
    try:
        fn(event)
    except Exception:
        log.exception("progress callback of job %s failed", event.job_id)
