"""Pure: access rules of the server: Host, Origin, Sec-Fetch-Site, and the token or a ticket.

Host and origin are checked even on loopback, so that no web page can reach the server through a browser.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from api.http.tickets import Tickets
from runner.errors import Unauthorized, WrongHost, WrongOrigin

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_WILDCARDS = frozenset({"", "0.0.0.0", "::", "[::]", "*"})
#: Paths that need no token: they only show that the process is alive.
_OPEN_PATHS = frozenset({"/healthz"})
_EXPOSED = b"Location, Preference-Applied, Retry-After, Content-Disposition"
_ALLOWED_HEADERS = b"Authorization, Content-Type, Prefer, Last-Event-ID, Cache-Control, Range"
_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

Headers = list[tuple[bytes, bytes]]
Scope = MutableMapping[str, Any]


class Access:
    """The access rules of one server; every request passes `check` first.

    `streams` are patterns of the paths that accept a ticket instead of the token; `now` returns UTC epoch
    seconds; `token_sha256` is empty if no token is required.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        allow_hosts: list[str],
        allow_origins: list[str],
        token_sha256: bytes,
        tickets: Tickets,
        streams: Sequence[re.Pattern[str]],
        now: Callable[[], float],
    ) -> None:
        names = list(LOOPBACK)
        if host not in _WILDCARDS:
            # A specific address that the operator has bound is as trusted as loopback.
            names.append(f"[{host}]" if ":" in host and not host.startswith("[") else host)
        self._hosts = {f"{name.lower()}:{port}" for name in names}
        if port == 80:
            self._hosts |= {name.lower() for name in names}
        self._any_port = {name.lower() for name in allow_hosts if not _has_port(name)}
        self._hosts |= {name.lower() for name in allow_hosts if _has_port(name)}
        self._own_origins = {f"http://{name}" for name in self._hosts}
        self._origins = {origin.rstrip("/").lower() for origin in allow_origins}
        self._token_sha256 = token_sha256
        self._tickets = tickets
        self._streams = streams
        self._now = now

    def check(self, scope: Scope) -> Headers:
        """Check a request; return the CORS headers for its response, none for our own pages and for programs.

        Over the Unix socket programs may send any Host: no browser opens such a socket, no name leads to it.
        What a browser sends comes through a proxy there, and is checked as on the port.

        Raises:
            WrongHost: the Host header is not a name of this server.
            WrongOrigin: the request comes from a page of another site.
            Unauthorized: neither the token nor a valid ticket was sent.
        """
        host = origin = fetch_site = token = None
        hosts = 0
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
                hosts += 1
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                fetch_site = value
            elif name == b"authorization":
                token = value
        name_and_port = "" if host is None or hosts > 1 else host.decode("latin-1").lower()
        if (
            name_and_port not in self._hosts
            and not self._is_allowed_on_any_port(name_and_port)
            and (origin is not None or fetch_site is not None or not _is_unix(scope))
        ):
            raise WrongHost(
                f"Host {name_and_port!r} is not allowed; start the server with --allow-host to add it"
            )
        cors = self._check_origin(origin, fetch_site, name_and_port)
        if self._token_sha256 and not is_preflight(scope) and scope["path"] not in _OPEN_PATHS:
            try:
                if token is not None or not self._has_ticket(scope):
                    self._check_token(token)
            except Unauthorized as error:
                challenge = {"www-authenticate": "Bearer"} | {
                    k.decode(): v.decode("latin-1") for k, v in cors
                }
                raise Unauthorized(error.message, headers=challenge) from error
        return cors

    def _is_allowed_on_any_port(self, host: str) -> bool:
        if not self._any_port:
            return False
        bare, colon, port = host.rpartition(":")
        if colon and port.isdigit() and not port.endswith("]"):
            return bare in self._any_port
        return host in self._any_port

    def _check_origin(self, origin: bytes | None, fetch_site: bytes | None, host: str) -> Headers:
        if origin is None:
            if fetch_site is not None and fetch_site.strip().lower() == b"cross-site":
                raise WrongOrigin(
                    "requests from pages of other sites are not allowed (Sec-Fetch-Site: cross-site)"
                )
            return []
        text = origin.decode("latin-1").lower()
        if text in self._origins:
            return [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", _EXPOSED),
                (b"vary", b"Origin"),
            ]
        is_own = text in self._own_origins or text in (f"http://{host}", f"https://{host}")
        if not is_own or (fetch_site is not None and fetch_site.strip().lower() == b"cross-site"):
            raise WrongOrigin(
                f"Origin {text!r} is not allowed; start the server with --allow-origin to add it"
            )
        return []

    def _has_ticket(self, scope: Scope) -> bool:
        """Return whether a valid ticket opens this stream; False without one or for other paths."""
        if scope["method"] != "GET":
            return False
        found = next(filter(None, (path.fullmatch(scope["path"]) for path in self._streams)), None)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("ticket", [])
        if found is None or not given:
            return False
        self._tickets.check(given[0], found.groupdict().get("job_id"), self._now())
        return True

    def _check_token(self, authorization: bytes | None) -> None:
        scheme, _, token = (authorization or b"").partition(b" ")
        digest = hashlib.sha256(token.strip()).digest()
        is_same = hmac.compare_digest(digest, self._token_sha256)
        if not is_same or scheme.lower() != b"bearer":
            raise Unauthorized("send the server's token as `Authorization: Bearer TOKEN`")


def _is_unix(scope: Scope) -> bool:
    """Return whether the request came over the Unix socket, whose address has no port."""
    server = scope.get("server")
    return server is not None and server[1] is None


def is_preflight(scope: Scope) -> bool:
    """Return whether this is a CORS preflight: a browser asks for permission to send the actual request."""
    return scope["method"] == "OPTIONS" and any(
        name == b"access-control-request-method" for name, _ in scope["headers"]
    )


def preflight_headers() -> Headers:
    """Return the headers that list what an allowed origin may send."""
    return [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", _ALLOWED_HEADERS),
        (b"access-control-max-age", b"600"),
    ]


def _has_port(name: str) -> bool:
    return "]:" in name or (name.count(":") == 1 and name.rpartition(":")[2].isdigit())
