"""Pure: the shape of the whole's figures, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from api.openapi.base_models import ResponseModel
from runner.jobs.job import State


class Percentiles(ResponseModel):
    """Of the last samples, in seconds; null where there are none."""

    p50: float | None
    p95: float | None


class Used(ResponseModel):
    """What was used of devices."""

    device_s: float = Field(description="time of executors at work, on each of their devices")
    byte_s: float = Field(description="the same times the bytes that were granted")
    attempts_on_devices: int


class HandlerStats(Used):
    """A handler's runs and what they used."""

    runs: int
    run_s: Percentiles
    wait_s: Percentiles


class TenantStats(Used):
    """A tenant's jobs and what they used."""

    weight: float
    queued: int
    running: int


class Stats(ResponseModel):
    """Counts and times since the start (`since`), and what was used of devices since `spent_since`."""

    at: datetime
    since: datetime
    counts: dict[State, int] = Field(description="jobs in the store")
    submitted: int
    ended: dict[str, int]
    retried: int
    cancelled: int
    stale_messages: int = Field(description="messages of attempts that had ended, which were dropped")
    failures: dict[str, int] = Field(description="jobs that did not succeed, by code")
    throughput_per_s: float = Field(description="jobs that ended in the last 60 s, a second")
    run_s: Percentiles
    wait_s: Percentiles
    spent_since: datetime
    handlers: dict[str, HandlerStats]
    tenants: dict[str, TenantStats] = Field(description='"": jobs without a tenant')
    devices: dict[str, Used]
