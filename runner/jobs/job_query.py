"""Pure: filters, order and page of a list of jobs."""

from __future__ import annotations

from typing import Literal

import msgspec


class JobQuery(msgspec.Struct, array_like=True):
    """Filters of GET /jobs; lists are alternatives, fields must all match, None matches all."""

    ids: list[str] | None = None
    states: list[str] | None = None
    reasons: list[str] | None = None
    handlers: list[str] | None = None
    queues: list[str] | None = None
    tags: list[str] | None = None
    #: (dotted path inside the input, JSON text of the wanted value); all must match.
    inputs: list[tuple[str, bytes]] | None = None
    created_after: float | None = None
    created_before: float | None = None
    finished_after: float | None = None
    finished_before: float | None = None
    #: By order of acceptance, newest first by default.
    order: Literal["desc", "asc"] = "desc"
    limit: int = 50
    #: Continue beyond this `n` in the given order (not inclusive).
    cursor: int | None = None
    tenants: list[str] | None = None
