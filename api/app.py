"""Effect: the ASGI application: access rules first, then the routes of every job, then the framework.

The hot routes bypass the framework, whose routing and validation cost more than the rest of a submit.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route as FrameworkRoute
from starlette.types import Message, Receive, Scope, Send

from api.http.auth import Access, Headers, is_preflight, preflight_headers
from api.http.connection import ClientGone
from api.http.problems import error_response, internal_error_response, status_response
from api.http.tickets import Tickets
from api.openapi.docs import DocsPage
from api.openapi.route import RouteSpec
from api.routes.routes import build_routes
from api.routes.state import FrontState
from runner.errors import RunnerError, Unauthorized

logger = logging.getLogger(__name__)

ID_CHARS = 36
_PATTERNS = {
    "job_id": f"[0-9a-f-]{{{ID_CHARS}}}",
    "name": "[A-Za-z0-9_.-]{1,100}",
    "file": r"(?!\.{1,2}$)[^/]{1,255}",
}
_POLICY = b"content-security-policy"
_SECURITY: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
_STRICT_POLICY = (_POLICY, b"default-src 'none'; frame-ancestors 'none'")


class App:
    """The ASGI callable for all requests of a front."""

    def __init__(self, front: FrontState) -> None:
        config = front.config
        tickets = Tickets(config.ticket_key)
        self._docs_page = DocsPage()
        table = build_routes(front, tickets, self._docs_page)
        self._access = Access(
            host=config.host,
            port=config.port,
            allow_hosts=config.allow_hosts,
            allow_origins=config.allow_origins,
            token_sha256=config.token_sha256,
            tickets=tickets,
            streams=[path_pattern(route.path) for route in table if route.is_stream],
            now=time.time,
        )
        self._hot = [
            (route.method, path_pattern(route.path), route.endpoint)
            for route in table
            if route.bypasses_framework
        ]
        self._framework = build_framework_app(table)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request; an unexpected error is logged and answered with 500."""
        if scope["type"] != "http":
            # uvicorn is configured for HTTP only, so this is a bug.
            raise RuntimeError(f"unexpected connection of type {scope['type']}")
        started = False
        extra = _SECURITY

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = message["headers"] = [*message["headers"], *extra]
                if not any(name == _POLICY for name, _ in headers):
                    headers.append(_STRICT_POLICY)
            await send(message)

        try:
            cors = self._access.check(scope)
            if cors:
                extra = [*_SECURITY, *cors]
            await self._serve(scope, receive, send_with_headers, preflight=bool(cors) and is_preflight(scope))
        except (ClientDisconnect, ClientGone):
            return
        except RunnerError as error:
            if not started:
                await self._error_response(scope, error)(scope, receive, send_with_headers)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if not started:
                await internal_error_response()(scope, receive, send_with_headers)

    def _error_response(self, scope: Scope, error: RunnerError) -> Response:
        """Return the problem; a browser without the token gets the page that asks for it."""
        if isinstance(error, Unauthorized) and scope["method"] == "GET" and _accepts_html(scope):
            if scope["path"] == "/docs":
                return self._docs_page.response(error.status, error.detail["headers"])
            if scope["path"] == "/":
                return RedirectResponse("/docs")
        return error_response(error)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, *, preflight: bool) -> None:
        if preflight:
            headers = {name.decode(): value.decode() for name, value in preflight_headers()}
            await Response(status_code=204, headers=headers)(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        for hot_method, hot_path, endpoint in self._hot:
            if method == hot_method and (found := hot_path.fullmatch(path)) is not None:
                scope["path_params"] = found.groupdict()
                response = await endpoint(Request(scope, receive, send))
                await response(scope, receive, send)
                return
        await self._framework(scope, receive, send)


def path_pattern(path: str) -> re.Pattern[str]:
    """Return a pattern that matches the paths of a template such as `/v1/jobs/{job_id}`."""
    return re.compile(re.sub(r"{(\w+)}", lambda found: f"(?P<{found[1]}>{_PATTERNS[found[1]]})", path))


def build_framework_app(table: tuple[RouteSpec, ...]) -> FastAPI:
    """Return the framework's application for the route table, with our problem documents for its errors."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    by_path: dict[str, list[RouteSpec]] = {}
    for route in table:
        by_path.setdefault(route.path, []).append(route)
    for path, on_path in by_path.items():
        endpoints = {route.method: route.endpoint for route in on_path}
        # One route for all methods of a path, so that a 405 can list them.
        app.router.routes.append(_PathRoute(path, endpoints))
    app.add_exception_handler(RunnerError, _on_runner_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected_error)
    return app


class _PathRoute(FrameworkRoute):
    """All methods of one path."""

    def __init__(self, path: str, endpoints: dict[str, Any]) -> None:
        async def dispatch(request: Request) -> Response:
            response: Response = await endpoints[request.method](request)
            return response

        super().__init__(path, dispatch, methods=list(endpoints))
        # Starlette adds HEAD to GET; uvicorn omits the body of the response.
        if "GET" in endpoints:
            endpoints["HEAD"] = endpoints["GET"]
        self.path_regex = re.compile(f"^{path_pattern(path).pattern}$")


def _accepts_html(scope: Scope) -> bool:
    """Return whether the request is that of a browser which opens a page."""
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])


async def _on_runner_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RunnerError)
    return error_response(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404 and request.url.path == "/" and _accepts_html(request.scope):
        return RedirectResponse("/docs")
    detail = {
        404: _not_found_detail(request.url.path),
        405: f"{request.method} is not supported at {request.url.path}",
    }.get(error.status_code, error.detail)
    return status_response(error.status_code, detail, dict(error.headers or {}))


def _not_found_detail(path: str) -> str:
    """Return the detail of a 404, with a hint at its usual causes: the bare address, or a truncated id."""
    if path == "/":
        return "there is nothing at /; see /docs for all routes"
    job_id = path.removeprefix("/v1/jobs/").partition("/")[0]
    if path.startswith("/v1/jobs/") and job_id and len(job_id) != ID_CHARS:
        return f"there is no job {job_id!r}: an id has {ID_CHARS} characters"
    return f"there is nothing at {path}"


async def _on_unexpected_error(request: Request, error: Exception) -> Response:
    # Not logged here: the framework raises the error again, and `App` logs it.
    return internal_error_response()
