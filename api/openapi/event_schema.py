"""Pure: the models of a job's events, and the schema of a stream of them.

OpenAPI 3.1 has no way to describe the items of a stream: the document then holds the models alone. OpenAPI
3.2 describes each item by `itemSchema` (section "Media Type Object").
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from api.openapi.base_models import ResponseModel
from api.openapi.schema import JobFailure
from runner.jobs.job import State

Json = dict[str, Any]


class EventData(ResponseModel):
    """What the data of every stored event holds."""

    job_id: str
    seq: int = Field(ge=1, description="number within the job; also the id of the event")
    at: datetime


class StatusEventData(EventData):
    """The job changed its state or reason."""

    state: State
    reason: str | None
    attempt: int
    error: JobFailure | None = Field(None, description="why the attempt failed that is followed by a retry")


class ProgressEventData(EventData):
    """Progress of the attempt."""

    done: float | None
    total: float | None
    fraction: float | None = Field(ge=0, le=1, description="done / total; null if the total is unknown")
    message: str | None
    details: dict[str, Any]


class LogEventData(EventData):
    """Text that the handler wrote."""

    stream: Literal["stdout", "stderr", "logging"]
    level: str | None
    text: str


class OutputEventData(EventData):
    """One chunk of a streamed output."""

    chunk: Any


class MetricEventData(EventData):
    """One value that the handler measured."""

    name: str
    value: Any


class DoneEventData(EventData):
    """The job ended; an output over 64 KiB is null beside its size."""

    state: State
    attempt: int
    output: Any
    output_bytes: int | None
    error: JobFailure | None


class GapEventData(ResponseModel):
    """Events that are no longer kept, in their place."""

    from_: int = Field(alias="from")
    to: int


class WaitingEventData(ResponseModel):
    """Why the job waits; sent on a change, at most once a second, and not stored."""

    job_id: str
    at: datetime
    reason: str
    message: str
    position: int | None = Field(ge=1, description="1 + the number of jobs that start before it")
    eta_s: float | None = Field(ge=0, description="estimated time until it starts; null if unknown")


#: Name of the event -> (name of the model of its data, whether it has an id).
EVENTS: dict[str, tuple[str, bool]] = {
    "snapshot": ("Job", False),
    "waiting": ("WaitingEventData", False),
    "gap": ("GapEventData", False),
    "status": ("StatusEventData", True),
    "progress": ("ProgressEventData", True),
    "log": ("LogEventData", True),
    "output": ("OutputEventData", True),
    "metric": ("MetricEventData", True),
    "done": ("DoneEventData", True),
}
MODELS: tuple[type[ResponseModel], ...] = (
    StatusEventData, ProgressEventData, LogEventData, OutputEventData, MetricEventData, DoneEventData,
    GapEventData, WaitingEventData,
)  # fmt: skip


def stream_media_type(reference: str, *, has_item_schema: bool) -> Json:
    """Return the media type object of a stream of events; `reference` is the prefix of component names."""
    if not has_item_schema:
        names = ", ".join(f"{event}: {model}" for event, (model, _) in EVENTS.items())
        about = f"Server-sent events. The data of each is one JSON object, by its name: {names}"
        return {"schema": {"type": "string", "description": about}}
    return {"itemSchema": {"oneOf": [_item(event, *found, reference) for event, found in EVENTS.items()]}}


def _item(event: str, model: str, has_id: bool, reference: str) -> Json:
    """Return the schema of one server-sent event as OpenAPI 3.2 sees it: its fields, all of them text."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": reference + model},
    }
    properties: Json = {"event": {"type": "string", "const": event}, "data": data}
    if has_id:
        properties["id"] = {"type": "string", "pattern": "^[1-9][0-9]*$"}
    return {"type": "object", "properties": properties, "required": sorted(properties)}
