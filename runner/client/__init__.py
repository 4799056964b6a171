"""Pure: the Python client: one core of operations, two thin shells over it."""

from runner.client.asynchronous import AsyncClient, AsyncJobHandle
from runner.client.blocking import Client, JobHandle
from runner.client.document import Job
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
from runner.client.operations import JobOptions

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
