"""Pure: the interface of a store, and the batch of writes that it takes.

A store is complete when it passes the conformance suite in `tests/runner/stores`.
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
    """Consecutive events of one job from one commit; one row."""

    job_number: int
    first_seq: int
    last_seq: int
    #: msgpack of list[Event].
    body: bytes


class WriteBatch(msgspec.Struct, array_like=True):
    """All writes of one transaction, applied in the order of the fields."""

    #: New jobs with the JSON text of their inputs, in the state they have at commit time.
    inserts: list[tuple[Job, bytes]] = msgspec.field(default_factory=list)
    #: The changed state of known jobs. A row whose stored attempt is higher stays unchanged.
    updates: list[Job] = msgspec.field(default_factory=list)
    #: (n, JSON text) of jobs that succeeded in this batch.
    outputs: list[tuple[int, bytes]] = msgspec.field(default_factory=list)
    events: list[EventChunk] = msgspec.field(default_factory=list)
    #: (n, seq): drop whole chunks whose last_seq < seq.
    trims: list[tuple[int, int]] = msgspec.field(default_factory=list)
    #: Jobs to remove with all their data.
    deletes: list[int] = msgspec.field(default_factory=list)
    #: Named values (paused queues, described handlers, learned figures); None removes one.
    values: list[tuple[str, bytes | None]] = msgspec.field(default_factory=list)


class Store(Protocol):
    """Durable storage of jobs. All methods block and belong to one thread.

    No method is called on a coordinator's event loop except with `memory:`, where they cost microseconds.

    Raises:
        StoreUnavailable: disk full, locked for longer than 5 s, read-only.
        StoreCorrupt: the file is damaged; nothing was changed.
        Fenced: another coordinator has taken a later epoch.
    """

    def take_epoch(self) -> int:
        """Begin a new coordinator's term: migrate if needed, check the file, and return the next epoch."""

    def commit(self, epoch: int, batch: WriteBatch) -> None:
        """Apply the batch in one durable transaction, or nothing of it."""

    def current_epoch(self) -> int:
        """Return the current epoch."""

    def find_jobs(self, query: JobQuery) -> list[Job]: ...

    def load_running_jobs(self) -> list[Job]:
        """Return running jobs, by number."""

    def load_queued_groups(self, now: float) -> list[StoredGroup]:
        """Return queued jobs as numbers; those with a `ready_at` after `now` are delayed."""

    def load_jobs(self, numbers: Sequence[int]) -> list[Job]:
        """Return the jobs among these numbers that exist, by number."""

    def load_payload(self, number: int, which: Literal["input", "output"]) -> bytes | None:
        """Return the JSON text of a job's input or output; None if there is none."""

    def load_payloads(self, numbers: Sequence[int], which: Literal["input", "output"]) -> dict[int, bytes]:
        """Return the payloads of the jobs that have one, in one step; for small ones."""

    def load_events(self, number: int, after: int, max_bytes: int) -> list[Event]:
        """Return events with seq > after in order, at least one if there is any, then up to `max_bytes`."""

    def load_values(self, prefix: str) -> dict[str, bytes]: ...

    def count_jobs(self) -> dict[tuple[str, str], int]:
        """Return the number of jobs by (queue, state)."""

    def last_job_number(self) -> int:
        """Return the highest job number ever assigned, 0 in an empty store."""

    def close(self) -> None: ...
