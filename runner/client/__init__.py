"""Pure: the Python client: operations written once, performed by a sync and an async client.

`http_call` defines requests and operations, `operations` all requests of the API, `events` the event
stream; `sync_client` and `async_client` only send and wait.
"""

from runner.client.async_client import AsyncClient, AsyncJobHandle
from runner.client.events import (
    DoneEvent,
    GapEvent,
    JobEvent,
    LogEvent,
    MetricEvent,
    OutputEvent,
    ProgressEvent,
    SnapshotEvent,
    StatusEvent,
    WaitingEvent,
)
from runner.client.models import Job
from runner.client.operations import JobOptions
from runner.client.sync_client import Client, JobHandle

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "Client",
    "DoneEvent",
    "GapEvent",
    "Job",
    "JobEvent",
    "JobHandle",
    "JobOptions",
    "LogEvent",
    "MetricEvent",
    "OutputEvent",
    "ProgressEvent",
    "SnapshotEvent",
    "StatusEvent",
    "WaitingEvent",
]
