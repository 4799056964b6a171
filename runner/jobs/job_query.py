"""Pure: filters, order and page of a list of jobs."""

from __future__ import annotations

from typing import Literal

import msgspec


class JobQuery(msgspec.Struct, array_like=True):
    """Filters of GET /v1/jobs.

    A job must match all fields, and one of the values of each list; None matches all.
    """

    ids: list[str] | None = None
    states: list[str] | None = None
    reasons: list[str] | None = None
    handlers: list[str] | None = None
    queues: list[str] | None = None
    tags: list[str] | None = None
    #: (dotted path inside the input, JSON text of the value); all must match.
    inputs: list[tuple[str, bytes]] | None = None
    #: Times are UTC epoch seconds.
    created_after: float | None = None
    created_before: float | None = None
    finished_after: float | None = None
    finished_before: float | None = None
    #: By order of acceptance.
    order: Literal["desc", "asc"] = "desc"
    #: Jobs in one page, 1 to 500.
    limit: int = 50
    #: Continue after the job with this number, in the given order.
    cursor: int | None = None
    tenants: list[str] | None = None
