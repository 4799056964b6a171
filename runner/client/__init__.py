"""Pure: the Python client: one core of operations with two thin clients over it."""

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
]
