"""Pure: the interface of a store, and the batch of writes that it commits.

A new store is complete when it passes the conformance suite in `tests/runner/stores`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from runner.jobs.event import Event
from runner.jobs.job import Job
from runner.jobs.job_query import JobQuery
from runner.stores.damaged_row import DamagedRow
from runner.stores.queued_groups import StoredGroup


class EventChunk(msgspec.Struct, array_like=True):
    """Consecutive events of one job, from one commit; they are stored as one row."""

    job_number: int
    first_seq: int
    last_seq: int
    #: msgpack of list[Event].
    body: bytes


class WriteBatch(msgspec.Struct, array_like=True):
    """All writes of one transaction, applied in the order of the fields."""

    #: New jobs with the JSON text of their inputs, in the state they have at commit time.
    inserts: list[tuple[Job, bytes]] = msgspec.field(default_factory=list)
    #: The changed state of known jobs. An update is stale if a later attempt is stored or the job is deleted:
    #: the output and events of the job in this batch are dropped with it.
    updates: list[Job] = msgspec.field(default_factory=list)
    #: (job number, JSON text) of the outputs of jobs that succeeded in this batch.
    outputs: list[tuple[int, bytes]] = msgspec.field(default_factory=list)
    events: list[EventChunk] = msgspec.field(default_factory=list)
    #: (job number, seq): drop whole chunks whose last_seq < seq.
    trims: list[tuple[int, int]] = msgspec.field(default_factory=list)
    #: Numbers of the jobs to remove with all their data.
    deletes: list[int] = msgspec.field(default_factory=list)
    #: Named values (paused queues, described handlers, learned figures); None removes one.
    values: list[tuple[str, bytes | None]] = msgspec.field(default_factory=list)
    #: (job number, id, reason): set these rows aside, which can't be read.
    damaged: list[tuple[int, str, str]] = msgspec.field(default_factory=list)


class SearchPage(msgspec.Struct):
    """The jobs that a search has found."""

    jobs: list[Job]
    #: Number of the last job that was looked at, if the search stopped before the last one of the store.
    stopped_at: int | None = None


class Store(Protocol):
    """Durable storage of jobs. All methods block, and one thread calls all of them.

    The event loop of a coordinator calls them for `memory:` only, where they cost microseconds.

    Reads leave out a job with a damaged row, input, output or event, and `take_damaged` names it.
    `WriteBatch.damaged` then sets its row aside.

    Raises:
        StoreUnavailable: disk full, locked for longer than 5 s, read-only.
        StoreCorrupt: the file is damaged; nothing was changed.
        JobDamaged: the payload or events that were asked for can't be read.
        Fenced: another coordinator has taken a later epoch.
    """

    def take_epoch(self) -> int:
        """Check and migrate the store; return the next epoch, which fences earlier coordinators."""

    def commit(self, epoch: int, batch: WriteBatch) -> None:
        """Apply the whole batch in one durable transaction, or nothing of it."""

    def current_epoch(self) -> int:
        """Return the current epoch.

        Raises:
            StoreGone: the file of the store was removed or replaced.
        """

    def find_jobs(self, query: JobQuery) -> list[Job]:
        """Return the jobs that match, in the query's order and up to its limit."""

    def search_jobs(self, query: JobQuery, *, rows_max: int, limit_s: float) -> SearchPage:
        """Return the jobs that match, as `find_jobs` does, after a look at a part of the jobs.

        For filters that read inputs. The search stops after `rows_max` jobs that match all other filters,
        or after about `limit_s` seconds.
        """

    def load_running_jobs(self) -> list[Job]:
        """Return all running jobs, in order of their numbers."""

    def load_queued_groups(self, now: float) -> list[StoredGroup]:
        """Return all queued jobs in groups; a job with a reason and a `ready_at` after `now` is delayed.

        One without a reason is ready: it was accepted while the clock was ahead.
        """

    def load_jobs(self, numbers: Sequence[int]) -> list[Job]:
        """Return the jobs with these numbers, in order of the numbers; missing ones are left out."""

    def load_payload(self, number: int, which: Literal["input", "output"]) -> bytes | None:
        """Return the JSON text of a job's input or output; None if there is none."""

    def load_payloads(self, numbers: Sequence[int], which: Literal["input", "output"]) -> dict[int, bytes]:
        """Return job number -> payload for the jobs that have one, read in one step: for small payloads."""

    def load_events(self, number: int, after: int, max_bytes: int) -> list[Event]:
        """Return the next events with seq > `after`, in order: at least one if there is any, then up to
        `max_bytes` of data."""

    def load_values(self, prefix: str) -> dict[str, bytes]:
        """Return the named values whose names begin with `prefix`."""

    def count_jobs(self) -> dict[tuple[str, str], int]:
        """Return the number of jobs by (queue, state); those set aside count as ("", DAMAGED)."""

    def take_damaged(self) -> list[DamagedRow]:
        """Return the jobs that reads since the last call found damaged."""

    def find_damaged(self, job_id: str) -> DamagedRow | None:
        """Return the row with this id if it is set aside or can't be read."""

    def list_set_aside(self, above: int, below: int, limit: int) -> list[DamagedRow]:
        """Return the rows set aside with numbers between the two bounds, in order of their numbers."""

    def last_job_number(self) -> int:
        """Return the highest job number ever assigned, 0 in an empty store."""

    def close(self) -> None:
        """Release all resources; the data stay."""
