"""Effect: HTTP for both clients: server address, connection options and connection errors."""

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
    """Arguments common to both `httpx2` clients."""

    base_url: str
    headers: dict[str, str]
    limits: httpx2.Limits
    verify: bool
    trust_env: bool


def server_url(url: str | None) -> str:
    """Return the server's address: the one given, else RUNNER_URL, else this machine's default."""
    chosen = (url or os.environ.get("RUNNER_URL") or DEFAULT_URL).rstrip("/")
    if not chosen.startswith(("http://", "https://")):
        raise BadRequest(f"{chosen!r} is no server's address; it looks like {DEFAULT_URL}")
    return chosen


def http_options(url: str, token: str | None) -> HttpOptions:
    """Return the connection options for `url`; the token is the one given or RUNNER_TOKEN."""
    secret = token or os.environ.get("RUNNER_TOKEN")
    host = httpx2.URL(url).host
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {secret}"} if secret else {},
        # Shorter than the server's 5 s, so that no request meets a connection that is being closed.
        "limits": httpx2.Limits(max_connections=None, keepalive_expiry=3.0),
        # Without TLS no certificates are needed, and loading them takes longer than a job.
        "verify": url.startswith("https://"),
        # Never use a proxy of the environment for this machine.
        "trust_env": host not in ("127.0.0.1", "localhost", "::1"),
    }


def request_options(call: HttpCall) -> dict[str, Any]:
    """Return the arguments of `request` and `stream` for a call."""
    return {
        "method": call.method,
        "url": call.path,
        "params": list(call.params) or None,
        "content": call.body,
        "headers": dict(call.headers),
        "timeout": httpx2.Timeout(call.timeout_s, connect=CONNECT_S, pool=None),
    }


def read_response(response: httpx2.Response) -> HttpResponse:
    """Return a response that was read to its end."""
    return HttpResponse(response.status_code, response.headers, response.content)


def connection_error(error: httpx2.TransportError, url: str, call: HttpCall | None = None) -> NoServer:
    """Return the error for a broken connection, with advice."""
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
        return NoServer(
            f"no server answers at {url}; start one with `runner serve`, "
            "or name another by --url or RUNNER_URL"
        )
    text = f"the server at {url} did not answer to the end ({type(error).__name__})"
    if call is not None and call.method == "POST":
        text += "; whether it took the request is not known"
    return NoServer(text)


def call_listener(fn: Callable[[ProgressEvent], object], event: ProgressEvent, log: logging.Logger) -> None:
    """Call a listener; log an exception of it instead of raising it."""
    try:
        fn(event)
    except Exception:
        log.exception("a progress listener of job %s failed", event.job_id)
