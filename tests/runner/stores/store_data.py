"""Jobs, batches and event chunks for the store's tests."""

from __future__ import annotations

import msgspec

from runner.jobs.event import Event
from runner.jobs.ids import uuid7
from runner.jobs.job import Job, JobTerms, State
from runner.stores.store import EventChunk, WriteBatch


def job(
    n: int, *, state: State = "queued", attempt: int = 0, tags: tuple[str, ...] = (), **fields: object
) -> Job:
    """A job made at second `n`; its id follows from `n`."""
    made = Job(
        number=n,
        id=uuid7(n * 1000, n.to_bytes(10, "big")),
        handler="echo",
        queue="default",
        priority=50,
        created_at=float(n),
        terms=JobTerms(tags=tags),
        input_bytes=2,
        state=state,
        attempt=attempt,
        finished_at=float(n) + 0.5 if state in ("succeeded", "failed", "cancelled") else None,
    )
    return msgspec.structs.replace(made, **fields)


def inserts(*jobs: Job, body: bytes = b"{}") -> WriteBatch:
    return WriteBatch(inserts=[(one, body) for one in jobs])


def events(first: int, last: int, size: int = 10) -> list[Event]:
    return [Event(seq, "log", b"x" * size) for seq in range(first, last + 1)]


def chunk(n: int, first: int, last: int, size: int = 10) -> EventChunk:
    return EventChunk(n, first, last, msgspec.msgpack.encode(events(first, last, size)))
