"""Pure: the route table of this version."""

from __future__ import annotations

from api.http.query_params import REASONS, STATES
from api.http.tickets import Tickets
from api.openapi.docs import DocsPage
from api.openapi.document import VERSIONS, OpenApiDocument
from api.openapi.route import (
    ANY_TYPE,
    EVENTS,
    JSON,
    NAMES,
    NDJSON,
    PREFER,
    PREFER_LOADED,
    STREAM_PARAMETERS,
    TAGS,
    TIME,
    Endpoint,
    Responses,
    RouteSpec,
    enum_list,
    query_parameter,
)
from api.routes.events import EventRoutes
from api.routes.executors import ExecutorRoutes
from api.routes.jobs import JobRoutes
from api.routes.state import FrontState
from api.routes.submit import SubmitRoutes
from api.routes.system import SystemRoutes
from api.routes.tickets import TicketRoutes

_SUBMIT_RESPONSES: Responses = {
    202: (JSON, "Job", "Accepted; Location names the job"),
    200: (JSON, "Job", "The job ended within the wait"),
}
_FILTERS = (
    query_parameter("state", enum_list(STATES)),
    query_parameter("reason", enum_list(REASONS)),
    query_parameter("handler", NAMES),
    query_parameter("queue", NAMES),
    query_parameter("tag", TAGS),
    query_parameter("tenant", NAMES),
    query_parameter("created_after", TIME),
    query_parameter("created_before", TIME),
    query_parameter("finished_after", TIME),
    query_parameter("finished_before", TIME),
    query_parameter("order", {"type": "string", "enum": ["desc", "asc"], "default": "desc"}),
    query_parameter("limit", {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}),
    query_parameter("cursor", {"type": "string", "minLength": 1}, "`next_cursor` of the previous page"),
    query_parameter(
        "input",
        {"type": "object", "additionalProperties": {"type": "string"}},
        "`input.PATH=VALUE`: jobs whose input has this value at the dotted path; VALUE is parsed as JSON, "
        "or taken as a string if it is not JSON",
    ),
)
_JOB = "/v1/jobs/{job_id}"


def build_routes(front: FrontState, tickets: Tickets, page: DocsPage) -> tuple[RouteSpec, ...]:
    """Return the route table of one front."""
    table: list[RouteSpec] = []
    document = OpenApiDocument(
        lambda: table, front.config.version, needs_token=bool(front.config.token_sha256)
    )
    table += _submit_routes(SubmitRoutes(front))
    table += _job_routes(JobRoutes(front), EventRoutes(front))
    table.append(_ticket_route(TicketRoutes(front, tickets)))
    table += _executor_routes(ExecutorRoutes(front))
    table += _system_routes(SystemRoutes(front, document, page))
    return tuple(table)


def _submit_routes(routes: SubmitRoutes) -> list[RouteSpec]:
    return [
        RouteSpec(
            "POST", "/v1/jobs", routes.submit, "submit_job", "jobs", _SUBMIT_RESPONSES, (404, 429),
            (PREFER,), {JSON: "JobRequest"}, bypasses_framework=True,
        ),
        RouteSpec(
            "POST", "/v1/jobs/bulk", routes.submit_bulk, "submit_jobs", "jobs",
            {202: (JSON, "BulkAnswer", "The result for each job, in order")}, (429,),
            body={JSON: "BulkRequest", NDJSON: None}, bypasses_framework=True,
        ),
        RouteSpec(
            "POST", "/v1/handlers/{name}/jobs", routes.submit_to_handler, "submit_to_handler", "handlers",
            _SUBMIT_RESPONSES, (404, 429), (PREFER,), {JSON: "HandlerJobRequest"}, bypasses_framework=True,
        ),
    ]  # fmt: skip


def _job_routes(routes: JobRoutes, events: EventRoutes) -> list[RouteSpec]:
    found: Responses = {200: (JSON, "Job", "The job")}
    stopped: Responses = {
        200: (JSON, "Job", "Cancelled before it started"),
        202: (JSON, "Job", "It is being stopped"),
    }
    stream: Responses = {
        200: (EVENTS, None, "The events; the stream ends with the job"),
        204: (None, None, "The job has ended and there are no more events"),
    }
    output: Responses = {
        200: (JSON, None, "The output"),
        303: (JSON, None, "The output is a single file, at Location"),
    }
    file: Responses = {
        200: (ANY_TYPE, None, "The file, with the media type that it was saved with"),
        206: (ANY_TYPE, None, "The requested range"),
    }
    return [
        RouteSpec(
            "GET", _JOB, routes.get, "get_job", "jobs", found, (404, 410), (PREFER,), bypasses_framework=True,
        ),
        RouteSpec(
            "GET", f"{_JOB}/events", events.stream_job, "stream_job", "jobs", stream, (404, 410),
            STREAM_PARAMETERS, bypasses_framework=True,
        ),
        RouteSpec(
            "GET", "/v1/jobs", routes.list_jobs, "list_jobs", "jobs", {200: (JSON, "JobPage", "A page")},
            parameters=_FILTERS,
        ),
        RouteSpec(
            "DELETE", _JOB, routes.delete, "delete_job", "jobs", {204: (None, None, "Gone")}, (404, 409),
        ),
        RouteSpec("GET", f"{_JOB}/output", routes.output, "get_output", "jobs", output, (404, 409, 410)),
        RouteSpec(
            "GET", f"{_JOB}/attempts", routes.attempts, "list_attempts", "jobs",
            {200: (JSON, "AttemptList", "All attempts")}, (404, 410),
        ),
        RouteSpec(
            "GET", f"{_JOB}/explain", routes.explain, "explain_job", "jobs",
            {200: (JSON, "Explanation", "Why it waits")}, (404, 410),
        ),
        RouteSpec(
            "POST", f"{_JOB}/cancel", routes.cancel, "cancel_job", "jobs", stopped, (404, 409, 410),
            body={JSON: "CancelRequest"}, body_required=False,
        ),
        RouteSpec(
            "POST", f"{_JOB}/retry", routes.retry, "retry_job", "jobs",
            {202: (JSON, "Job", "The job is queued again")}, (404, 409, 410),
        ),
        RouteSpec(
            "GET", f"{_JOB}/files/{{file}}", routes.file, "get_file", "jobs", file, (400, 404, 410, 416),
        ),
        RouteSpec(
            "GET", f"{_JOB}/files", routes.files, "list_files", "jobs",
            {200: (JSON, "FileList", "All files")}, (404, 410),
        ),
    ]  # fmt: skip


def _executor_routes(routes: ExecutorRoutes) -> list[RouteSpec]:
    return [
        RouteSpec(
            "POST", "/v1/handlers/{name}/load", routes.load, "load_handler", "handlers",
            {
                200: (JSON, "LoadAnswer", "The handler is loaded"),
                202: (JSON, "LoadAnswer", "It is loading, or waiting for capacity"),
            },
            (404, 409), (PREFER_LOADED,), {JSON: "LoadRequest"}, body_required=False,
        ),
        RouteSpec(
            "POST", "/v1/handlers/{name}/unload", routes.unload, "unload_handler", "handlers",
            {
                200: (JSON, "UnloadAnswer", "The handler was not loaded"),
                202: (JSON, "UnloadAnswer", "These executors are unloaded after their current jobs"),
            },
            (404,), body={JSON: "LoadRequest"}, body_required=False,
        ),
    ]  # fmt: skip


def _ticket_route(routes: TicketRoutes) -> RouteSpec:
    return RouteSpec(
        "POST", "/v1/tickets", routes.issue, "issue_ticket", "jobs", {201: (JSON, "Ticket", "The ticket")},
        (404,), body={JSON: "TicketRequest"}, body_required=False,
    )  # fmt: skip


def _system_routes(routes: SystemRoutes) -> list[RouteSpec]:
    queue: Responses = {200: (JSON, "Queue", "The queue")}
    device: Responses = {200: (JSON, "Device", "The device")}
    return [
        _get_route("/v1/queues", routes.queues, "list_queues", "queues", "QueueList"),
        RouteSpec("GET", "/v1/queues/{name}", routes.queue, "get_queue", "queues", queue, (404,)),
        RouteSpec(
            "PUT", "/v1/queues/{name}", routes.put_queue, "put_queue", "queues", queue, (404, 429),
            body={JSON: "QueueChange"},
        ),
        RouteSpec("POST", "/v1/queues/{name}/pause", routes.pause, "pause_queue", "queues", queue, (404,)),
        RouteSpec("POST", "/v1/queues/{name}/resume", routes.resume, "resume_queue", "queues", queue, (404,)),
        _get_route("/v1/handlers", routes.handlers, "list_handlers", "handlers", "HandlerList"),
        # Must precede the route that matches any handler's name.
        RouteSpec(
            "POST", "/v1/handlers/reload", routes.reload, "reload_handlers", "handlers",
            {
                200: (JSON, "HandlerChanges", "The changes, now active"),
                202: (JSON, "HandlerChanges", "The reload is still in progress"),
            },
            (409,),
        ),
        RouteSpec(
            "GET", "/v1/handlers/{name}", routes.handler, "get_handler", "handlers",
            {200: (JSON, "Handler", "The handler")}, (404,),
        ),
        _get_route("/v1/devices", routes.devices, "list_devices", "devices", "DeviceList"),
        RouteSpec(
            "POST", "/v1/devices/{name}/drain", routes.drain, "drain_device", "devices", device, (404,),
        ),
        RouteSpec(
            "POST", "/v1/devices/{name}/resume", routes.undrain, "resume_device", "devices", device, (404,),
        ),
        RouteSpec(
            "PATCH", "/v1/devices/{name}", routes.set_device, "set_device", "devices", device, (404,),
            body={JSON: "DeviceChange"},
        ),
        _get_route("/v1/workers", routes.workers, "list_workers", "devices", "WorkerList"),
        _get_route("/v1/stats", routes.stats, "get_stats", "server", "Stats"),
        _get_route("/healthz", routes.health, "live", "server", "Health"),
        _get_route("/readyz", routes.ready, "ready", "server", "Readiness"),
        RouteSpec(
            "GET", "/metrics", routes.metrics, "metrics", "server",
            {200: ("text/plain", None, "Metrics in the Prometheus text format")},
        ),
        RouteSpec(
            "GET", "/openapi.json", routes.openapi, "openapi", "server",
            {200: (JSON, None, "The document")},
            parameters=(query_parameter(
                "version", {"type": "string", "enum": [*VERSIONS]}, "3.2 also describes the events of streams"
            ),),
        ),
        RouteSpec(
            "GET", "/docs", routes.docs, "docs", "server",
            {200: ("text/html", None, "A page that shows this document")},
        ),
    ]  # fmt: skip


def _get_route(path: str, endpoint: Endpoint, name: str, tag: str, model: str | None) -> RouteSpec:
    return RouteSpec("GET", path, endpoint, name, tag, {200: (JSON, model, model or "The document")})
