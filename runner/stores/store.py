"""Pure: the interface of a store, and the batch of writes that it takes.

A store is finished when the conformance suite in `tests/runner/stores` is green over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from runner.jobs.event import Event
from runner.jobs.job import Job
from runner.jobs.job_query import JobQuery
from runner.stores.queued_groups import StoredGroup


class EventChunk(msgspec.Struct, array_like=True):
    """Consecutive events of one job that one commit holds; one row."""

    job_number: int
    first_seq: int
    last_seq: int
    #: msgpack of list[Event].
    body: bytes


class WriteBatch(msgspec.Struct, array_like=True):
    """All writes of one transaction, applied in the order of the fields."""

    #: New jobs with the JSON text of their inputs, in the state they have at commit time.
    inserts: list[tuple[Job, bytes]] = msgspec.field(default_factory=list)
    #: The changed state of known jobs. A row whose stored attempt is higher is left alone.
    updates: list[Job] = msgspec.field(default_factory=list)
    #: (n, JSON text) of jobs that succeeded in this batch.
    outputs: list[tuple[int, bytes]] = msgspec.field(default_factory=list)
    events: list[EventChunk] = msgspec.field(default_factory=list)
    #: (n, seq): drop whole chunks whose last_seq < seq.
    trims: list[tuple[int, int]] = msgspec.field(default_factory=list)
    #: Jobs to remove with all that is theirs.
    deletes: list[int] = msgspec.field(default_factory=list)
    #: Named values (paused queues, described handlers, learned figures); None removes one.
    values: list[tuple[str, bytes | None]] = msgspec.field(default_factory=list)


class Store(Protocol):
    """Durable memory. All methods block and belong to one thread; none is called on the loop
    of a coordinator except `memory:`, where they cost microseconds.

    Raises:
        StoreUnavailable: disk full, locked for longer than 5 s, read-only.
        StoreCorrupt: the file is damaged; nothing was changed.
        Fenced: another coordinator has taken a later epoch.
    """

    def take_epoch(self) -> int:
        """Begin a new coordinator's time: migrate if need be, check the file, and give the next epoch."""

    def commit(self, epoch: int, batch: WriteBatch) -> None:
        """Apply the batch in one durable transaction, or nothing of it."""

    def current_epoch(self) -> int:
        """The epoch in force."""

    def find_jobs(self, query: JobQuery) -> list[Job]: ...

    def load_running_jobs(self) -> list[Job]:
        """The jobs that run, by `n`."""

    def load_queued_groups(self, now: float) -> list[StoredGroup]:
        """The queued jobs as numbers; those with a `ready_at` after `now` are delayed."""

    def load_jobs(self, numbers: Sequence[int]) -> list[Job]:
        """Those of these numbers that there are, by `n`."""

    def load_payload(self, number: int, which: Literal["input", "output"]) -> bytes | None:
        """JSON text of a job's input or output; None where there is none."""

    def load_payloads(self, numbers: Sequence[int], which: Literal["input", "output"]) -> dict[int, bytes]:
        """Those of several jobs that have one, in one step; for small ones."""

    def load_events(self, number: int, after: int, max_bytes: int) -> list[Event]:
        """Events with seq > after in order, at least one if there is any, then up to `max_bytes`."""

    def load_values(self, prefix: str) -> dict[str, bytes]: ...

    def count_jobs(self) -> dict[tuple[str, str], int]:
        """Jobs by (queue, state)."""

    def last_job_number(self) -> int:
        """The highest `n` ever given, 0 in an empty store."""

    def close(self) -> None: ...
