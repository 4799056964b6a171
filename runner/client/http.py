"""Effect: HTTP for both clients: server address, requests, responses and connection errors.

The environment (RUNNER_URL, RUNNER_TOKEN, and the proxies) is read here and nowhere else in the client.
"""

from __future__ import annotations

import base64
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

import httpcore2

from runner.client.events import ProgressEvent
from runner.client.http_call import HttpCall, HttpResponse
from runner.client.network import PoolOptions
from runner.errors import BadRequest, NoServer

DEFAULT_URL = "http://127.0.0.1:8484"
UNIX_SCHEME = "unix://"
CONNECT_S = 5.0
#: What the pools raise if there was no response, or only a part of one.
TRANSPORT_ERRORS = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
)

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: Characters that a path keeps as they are; "%" because its parts are quoted already.
_PATH_SAFE = "/%:@!$&'()*+,;="


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's address, and what every request to it has in common."""

    scheme: bytes
    #: Without brackets, also an IPv6 address.
    host: bytes
    port: int | None
    #: Path in front of every path of the API, "" or such as "/runner".
    prefix: str
    headers: tuple[tuple[bytes, bytes], ...]

    @property
    def origin(self) -> httpcore2.Origin:
        """The server's origin; over a Unix socket a name for it."""
        return httpcore2.URL(scheme=self.scheme, host=self.host, port=self.port, target="/").origin

    def request_options(self, call: HttpCall) -> dict[str, Any]:
        """Return the keyword arguments of `httpcore2.Request`, and of `stream` of a pool, for a call."""
        target = quote(self.prefix + call.path, safe=_PATH_SAFE)
        if call.params:
            target += "?" + urlencode(call.params)
        given = [(name.encode("ascii"), value.encode("latin-1")) for name, value in call.headers.items()]
        if call.body is not None or call.method == "POST":
            given.append((b"Content-Length", b"%d" % len(call.body or b"")))
        timeouts = {"connect": CONNECT_S, "read": call.timeout_s, "write": call.timeout_s, "pool": None}
        return {
            "method": call.method.encode("ascii"),
            "url": httpcore2.URL(
                scheme=self.scheme, host=self.host, port=self.port, target=target.encode("ascii")
            ),
            "headers": [*self.headers, *given],
            "content": call.body,
            "extensions": {"timeout": timeouts},
        }


def server_url(url: str | None) -> str:
    """Return the server's URL: the one given, else RUNNER_URL, else this machine's default port.

    Raises:
        BadRequest: neither an http or https URL nor `unix://` and the path of a socket.
    """
    chosen = (url or os.environ.get("RUNNER_URL") or DEFAULT_URL).rstrip("/")
    if chosen.startswith(UNIX_SCHEME) and len(chosen) > len(UNIX_SCHEME):
        return chosen
    try:
        parts = urlsplit(chosen)
        host = (parts.hostname or "").encode("idna")
        is_valid = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise BadRequest(
            f"invalid URL {chosen!r}; expected something like {DEFAULT_URL} or unix:///run/runner.sock"
        )
    return chosen


def find_endpoint(url: str, token: str | None) -> Endpoint:
    """Return the endpoint of a URL from `server_url`; `token` None means RUNNER_TOKEN."""
    secret = token or os.environ.get("RUNNER_TOKEN")
    # No proxy on the way has to compress, and the client to decompress.
    headers = [(b"User-Agent", b"runner-client"), (b"Accept-Encoding", b"identity")]
    parts = urlsplit("http://localhost" if url.startswith(UNIX_SCHEME) else url)
    if parts.username is not None:
        headers.append((b"Authorization", b"Basic " + base64.b64encode(b":".join(_credentials(parts)))))
    elif secret:
        headers.append((b"Authorization", f"Bearer {secret}".encode("latin-1")))
    host = (parts.hostname or "").encode("idna")
    address = b"[%b]" % host if b":" in host else host
    headers.insert(0, (b"Host", address if parts.port is None else b"%b:%d" % (address, parts.port)))
    return Endpoint(parts.scheme.encode(), host, parts.port, parts.path, tuple(headers))


def pool_options(url: str) -> PoolOptions:
    """Return the options of a pool for a URL from `server_url`.

    Raises:
        BadRequest: this platform has no Unix sockets.
    """
    if url.startswith(UNIX_SCHEME):
        if not hasattr(socket, "AF_UNIX"):
            raise BadRequest(f"this platform has no Unix sockets; use the http URL of the server, not {url}")
        path = os.path.expanduser(url.removeprefix(UNIX_SCHEME))
        return {"ssl_context": None, "proxy": None, "uds": path}
    parts = urlsplit(url)
    # Plain HTTP needs no certificates, and loading them takes longer than a short job.
    ssl_context = httpcore2.default_ssl_context() if parts.scheme == "https" else None
    return {"ssl_context": ssl_context, "proxy": _find_proxy(parts), "uds": None}


def _find_proxy(server: SplitResult) -> httpcore2.Proxy | None:
    """Return the proxy that the environment names for a server; none for this machine."""
    host = server.hostname or ""
    if host in _LOOPBACK:
        return None
    # Imported here: a client of this machine, as of every command, does without.
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    named = proxies.get(server.scheme) or proxies.get("all")
    if not named or proxy_bypass(host):
        return None
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    return httpcore2.Proxy(
        httpcore2.URL(scheme=proxy.scheme, host=proxy.hostname or "", port=proxy.port, target="/"),
        auth=None if proxy.username is None else _credentials(proxy),
    )


def _credentials(url: SplitResult) -> tuple[bytes, bytes]:
    return unquote(url.username or "").encode(), unquote(url.password or "").encode()


def read_response(response: httpcore2.Response) -> HttpResponse:
    """Return a response whose body has been read completely."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    return HttpResponse(response.status, headers, response.content)


def connection_error(error: Exception, url: str, call: HttpCall | None = None) -> NoServer:
    """Return the error for a failed connection, with advice.

    If `call` is a POST that may have reached the server, the text says that its outcome is unknown.
    """
    if isinstance(error, (httpcore2.ConnectError, httpcore2.ConnectTimeout)):
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
