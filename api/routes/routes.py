"""Pure: all routes of this version."""

from __future__ import annotations

from api.http.query_params import REASONS, STATES
from api.http.tickets import Tickets
from api.openapi.docs import DocsPage
from api.openapi.document import OpenApi
from api.openapi.route import (
    EVENTS,
    JSON,
    NAMES,
    NDJSON,
    PREFER,
    STREAM,
    TAGS,
    TIME,
    WAIT_LOADED,
    Answers,
    Endpoint,
    Route,
    query,
    words,
)
from api.routes.events import EventRoutes
from api.routes.executors import LoadRoutes
from api.routes.jobs import JobRoutes
from api.routes.state import FrontState
from api.routes.submit import SubmitRoutes
from api.routes.system import SystemRoutes
from api.routes.tickets import TicketRoutes

_WAITED: Answers = {
    202: (JSON, "Job", "Accepted; Location names the job"),
    200: (JSON, "Job", "It ended within the wait"),
}
_FILTERS = (
    query("state", words(STATES)),
    query("reason", words(REASONS)),
    query("handler", NAMES),
    query("queue", NAMES),
    query("tag", TAGS),
    query("tenant", NAMES),
    query("created_after", TIME),
    query("created_before", TIME),
    query("finished_after", TIME),
    query("finished_before", TIME),
    query("order", {"type": "string", "enum": ["desc", "asc"], "default": "desc"}),
    query("limit", {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}),
    query("cursor", {"type": "string", "minLength": 1}, "`next_cursor` of the page before"),
    query(
        "input",
        {"type": "object", "additionalProperties": {"type": "string"}},
        "`input.PATH=VALUE`: jobs whose input has this value at the dotted path; VALUE is read as JSON, "
        "and as a string where it is none",
    ),
)
_JOB = "/v1/jobs/{job_id}"


def routes(front: FrontState, tickets: Tickets, page: DocsPage) -> tuple[Route, ...]:
    """The table for one front."""
    table: list[Route] = []
    document = OpenApi(lambda: table, front.config.version, token=bool(front.config.token_sha256))
    table += _submits(SubmitRoutes(front))
    table += _jobs(JobRoutes(front), EventRoutes(front))
    table.append(_tickets(TicketRoutes(front, tickets)))
    table += _loads(LoadRoutes(front))
    table += _system(SystemRoutes(front, document, page))
    return tuple(table)


def _submits(of: SubmitRoutes) -> list[Route]:
    return [
        Route(
            "POST", "/v1/jobs", of.one, "submit_job", "jobs", _WAITED, (404, 429),
            (PREFER,), {JSON: "JobRequest"}, hot=True,
        ),
        Route(
            "POST", "/v1/jobs/bulk", of.bulk, "submit_jobs", "jobs",
            {202: (JSON, "BulkAnswer", "What became of each")}, (429,),
            body={JSON: "BulkRequest", NDJSON: None}, hot=True,
        ),
        Route(
            "POST", "/v1/handlers/{name}/jobs", of.by_handler, "submit_to_handler", "handlers", _WAITED,
            (404, 429), (PREFER,), {JSON: "HandlerJobRequest"}, hot=True,
        ),
    ]  # fmt: skip


def _jobs(of: JobRoutes, events: EventRoutes) -> list[Route]:
    found: Answers = {200: (JSON, "Job", "The job")}
    stopped: Answers = {200: (JSON, "Job", "It had not started"), 202: (JSON, "Job", "It is being stopped")}
    stream: Answers = {
        200: (EVENTS, None, "The events; the stream ends with the job"),
        204: (None, None, "The job has ended and nothing is left"),
    }
    output: Answers = {200: (JSON, None, "The output"), 303: (JSON, None, "It is a file; Location names it")}
    file: Answers = {
        200: ("application/octet-stream", None, "The file"),
        206: ("application/octet-stream", None, "The range asked for"),
    }
    return [
        Route("GET", _JOB, of.get, "get_job", "jobs", found, (404,), (PREFER,), hot=True),
        Route("GET", f"{_JOB}/events", events.of_job, "stream_job", "jobs", stream, (404,), STREAM, hot=True),
        Route(
            "GET", "/v1/jobs", of.find, "list_jobs", "jobs", {200: (JSON, "JobPage", "A page")},
            parameters=_FILTERS,
        ),
        Route("DELETE", _JOB, of.delete, "delete_job", "jobs", {204: (None, None, "Gone")}, (404, 409)),
        Route("GET", f"{_JOB}/output", of.output, "get_output", "jobs", output, (404, 409)),
        Route(
            "GET", f"{_JOB}/attempts", of.attempts, "list_attempts", "jobs",
            {200: (JSON, "AttemptList", "Every execution")}, (404,),
        ),
        Route(
            "GET", f"{_JOB}/explain", of.explain, "explain_job", "jobs",
            {200: (JSON, "Explanation", "Why it waits")}, (404,),
        ),
        Route(
            "POST", f"{_JOB}/cancel", of.cancel, "cancel_job", "jobs", stopped, (404, 409),
            body={JSON: "CancelRequest"}, body_required=False,
        ),
        Route(
            "POST", f"{_JOB}/retry", of.retry, "retry_job", "jobs",
            {202: (JSON, "Job", "It will run again")}, (404, 409),
        ),
        Route("GET", f"{_JOB}/files/{{file}}", of.file, "get_file", "jobs", file, (400, 404, 416)),
    ]  # fmt: skip


def _loads(of: LoadRoutes) -> list[Route]:
    return [
        Route(
            "POST", "/v1/handlers/{name}/load", of.load, "load_handler", "handlers",
            {
                200: (JSON, "LoadAnswer", "It is loaded"),
                202: (JSON, "LoadAnswer", "It loads, or waits for room"),
            },
            (404, 409), (WAIT_LOADED,), {JSON: "LoadRequest"}, body_required=False,
        ),
        Route(
            "POST", "/v1/handlers/{name}/unload", of.unload, "unload_handler", "handlers",
            {
                200: (JSON, "UnloadAnswer", "None of it was loaded"),
                202: (JSON, "UnloadAnswer", "These go, when they have ended what they run"),
            },
            (404,), body={JSON: "LoadRequest"}, body_required=False,
        ),
    ]  # fmt: skip


def _tickets(of: TicketRoutes) -> Route:
    return Route(
        "POST", "/v1/tickets", of.issue, "issue_ticket", "jobs", {201: (JSON, "Ticket", "The ticket")},
        (404,), body={JSON: "TicketRequest"}, body_required=False,
    )  # fmt: skip


def _system(of: SystemRoutes) -> list[Route]:
    queue: Answers = {200: (JSON, "Queue", "The queue")}
    device: Answers = {200: (JSON, "Device", "The device")}
    return [
        _get("/v1/queues", of.queues, "list_queues", "queues", "QueueList"),
        Route("GET", "/v1/queues/{name}", of.queue, "get_queue", "queues", queue, (404,)),
        Route("POST", "/v1/queues/{name}/pause", of.pause, "pause_queue", "queues", queue, (404,)),
        Route("POST", "/v1/queues/{name}/resume", of.resume, "resume_queue", "queues", queue, (404,)),
        _get("/v1/handlers", of.handlers, "list_handlers", "handlers", "HandlerList"),
        # Before the one that any name fits.
        Route(
            "POST", "/v1/handlers/reload", of.reload, "reload_handlers", "handlers",
            {
                200: (JSON, "HandlerChanges", "What has changed; it is in force"),
                202: (JSON, "HandlerChanges", "It takes long and goes on"),
            },
            (409,),
        ),
        Route(
            "GET", "/v1/handlers/{name}", of.handler, "get_handler", "handlers",
            {200: (JSON, "Handler", "The handler")}, (404,),
        ),
        _get("/v1/devices", of.devices, "list_devices", "devices", "DeviceList"),
        Route("POST", "/v1/devices/{name}/drain", of.drain, "drain_device", "devices", device, (404,)),
        Route("POST", "/v1/devices/{name}/resume", of.undrain, "resume_device", "devices", device, (404,)),
        Route(
            "PATCH", "/v1/devices/{name}", of.set_device, "set_device", "devices", device, (404,),
            body={JSON: "DeviceChange"},
        ),
        _get("/v1/workers", of.workers, "list_workers", "devices", "WorkerList"),
        _get("/v1/stats", of.stats, "get_stats", "server", "Stats"),
        _get("/healthz", of.healthy, "live", "server", "Health"),
        _get("/readyz", of.ready, "ready", "server", "Readiness"),
        Route("GET", "/metrics", of.metrics, "metrics", "server", {200: ("text/plain", None, "Figures")}),
        _get("/openapi.json", of.openapi, "openapi", "server", None),
        Route("GET", "/docs", of.docs, "docs", "server", {200: ("text/html", None, "This document to read")}),
    ]  # fmt: skip


def _get(path: str, endpoint: Endpoint, name: str, tag: str, model: str | None) -> Route:
    return Route("GET", path, endpoint, name, tag, {200: (JSON, model, model or "The document")})
