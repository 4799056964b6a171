"""Pure: one entry of a job's event log."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

EventType = Literal["status", "progress", "log", "output", "metric", "done"]
EVENT_TYPES: tuple[str, ...] = get_args(EventType)
#: The types to which a reader can limit a stream: the stored ones, and `waiting`, which is not stored.
STREAM_TYPES = (*EVENT_TYPES, "waiting")


class Event(msgspec.Struct, frozen=True, array_like=True):
    """A stored event.

    `data` is one JSON object on one line, complete as SSE sends it (`job_id`, `seq`, `at` and the fields of
    its type), encoded once for all readers.
    """

    #: 1, 2, 3, ... within the job, across all its attempts; a number is never reused.
    seq: int
    type: EventType
    data: bytes
