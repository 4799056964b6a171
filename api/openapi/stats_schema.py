"""Pure: the model of /v1/stats for the OpenAPI document."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from api.openapi.base_models import ResponseModel
from runner.jobs.job import State


class Percentiles(ResponseModel):
    """Percentiles of the latest samples, in seconds; null without samples."""

    p50: float | None
    p95: float | None


class Used(ResponseModel):
    """Device usage."""

    device_s: float = Field(description="seconds in which executors were busy, summed over their devices")
    byte_s: float = Field(description="granted bytes times device seconds")
    attempts_on_devices: int


class HandlerStats(Used):
    """Runs of a handler and their device usage."""

    runs: int
    run_s: Percentiles
    wait_s: Percentiles


class TenantStats(Used):
    """Jobs of a tenant and their device usage."""

    weight: float
    queued: int
    running: int


class Stats(ResponseModel):
    """Counts and times since the start (`since`), and device usage since `spent_since`."""

    at: datetime
    since: datetime
    counts: dict[State, int] = Field(description="jobs in the store")
    submitted: int
    ended: dict[str, int]
    retried: int
    cancelled: int
    stale_messages: int = Field(description="messages dropped because their attempt had already ended")
    failures: dict[str, int] = Field(description="jobs that did not succeed, by error code")
    throughput_per_s: float = Field(description="jobs per second that ended, over the last 60 s")
    run_s: Percentiles
    wait_s: Percentiles
    spent_since: datetime
    handlers: dict[str, HandlerStats]
    tenants: dict[str, TenantStats] = Field(description='"": jobs without a tenant')
    devices: dict[str, Used]
