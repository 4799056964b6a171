"""Pure: the route table, from which the router and the OpenAPI document are built."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.openapi.schema import TAG
from runner.bounds import FILTER_VALUES_MAX
from runner.formats.names import NAME_PATTERN
from runner.jobs.event import STREAM_TYPES

Endpoint = Callable[[Request], Awaitable[Response]]
#: Status -> (media type, name of a model or None, description).
Responses = Mapping[int, tuple[str | None, str | None, str]]
JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"
ANY_TYPE = "*/*"
#: Problems of every route: a wrong Host, Origin or token, an unknown parameter, a bug, no coordinator.
COMMON_PROBLEMS = (401, 403, 421, 422, 500, 503)
#: Further problems of routes with a body.
BODY_PROBLEMS = (413, 415)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter or header of a route."""

    name: str
    #: "query" or "header".
    location: str
    schema: dict[str, Any]
    description: str = ""


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """One method on one path; the first line of the endpoint's docstring is its summary."""

    method: str
    path: str
    endpoint: Endpoint
    #: The operation id.
    name: str
    tag: str
    responses: Responses
    #: Statuses of problems besides COMMON_PROBLEMS.
    problems: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    #: Model of the body by media type.
    body: dict[str, str | None] = field(default_factory=dict)
    body_required: bool = True
    #: Matched first, without the framework: the routes that every job uses.
    bypasses_framework: bool = False

    @property
    def is_stream(self) -> bool:
        """Return whether it responds with events; readers may authenticate with a ticket."""
        return any(media_type == EVENTS for media_type, _, _ in self.responses.values())


def query_parameter(name: str, schema: dict[str, Any], description: str = "") -> Parameter:
    """Return a query parameter."""
    return Parameter(name, "query", schema, description)


def enum_list(values: tuple[str, ...]) -> dict[str, Any]:
    """Return the schema of a repeatable parameter with these values."""
    return {"type": "array", "items": {"type": "string", "enum": list(values)}}


TAGS: dict[str, Any] = {
    "type": "array", "items": {"type": "string", "pattern": TAG}, "maxItems": FILTER_VALUES_MAX,
}  # fmt: skip
NAMES: dict[str, Any] = {
    "type": "array", "items": {"type": "string", "pattern": NAME_PATTERN}, "maxItems": FILTER_VALUES_MAX,
}  # fmt: skip
TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
PREFER = Parameter(
    "Prefer", "header", {"type": "string", "examples": ["wait=30"]},
    "`wait=N`: respond when the job has ended, or after N seconds (at most 300)",
)  # fmt: skip
PREFER_LOADED = Parameter(
    "Prefer", "header", {"type": "string", "examples": ["wait=60"]},
    "`wait=N`: respond when the load has finished or failed, or after N seconds (at most 300)",
)  # fmt: skip
STREAM_PARAMETERS = (
    query_parameter(
        "after",
        {"anyOf": [{"type": "integer", "minimum": 0}, {"const": "now"}]},
        "start after the event with this id, or now",
    ),
    query_parameter(
        "types", enum_list(STREAM_TYPES), "only these types of events; repeated or comma-separated"
    ),
    query_parameter(
        "ticket", {"type": "string"}, "ticket from POST /v1/tickets, for clients that can't send the token"
    ),
    Parameter("Last-Event-ID", "header", {"type": "integer", "minimum": 0}, "takes precedence over `after`"),
)
