"""Pure: the changes since the last commit, which the next commit takes as one batch."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from runner.jobs.event import Event
from runner.jobs.job import Job
from runner.stores.store import EventChunk, WriteBatch

#: The events of a job in one commit are split into rows of about this size, as a reader of one page of a long
#: log reads whole rows. Up to `SINGLE_ROW_EVENTS_MAX` events stay in one row.
EVENT_ROW_BYTES = 64 * 1024
SINGLE_ROW_EVENTS_MAX = 32

#: New events by job, in the order in which the jobs first had one.
EventsByJob = list[tuple[Job, list[Event]]]

_encode = msgspec.msgpack.Encoder().encode


class PendingBatch:
    """The rows of the next commit.

    A job is written in the state that it has when the batch is taken, so that the insert and the end of a
    short job are one row.
    """

    def __init__(self) -> None:
        self._inserts: dict[int, tuple[Job, bytes]] = {}
        self._updates: dict[int, Job] = {}
        self._outputs: list[tuple[int, bytes]] = []
        self._events: dict[int, tuple[Job, list[Event]]] = {}
        self._trims: list[tuple[int, int]] = []
        self._deletes: list[int] = []
        self._values: dict[str, bytes | None] = {}
        #: Number -> id and reason of rows to set aside.
        self._damaged: dict[int, tuple[str, str]] = {}

    def insert(self, job: Job, input_: bytes) -> None:
        """Add a new job."""
        self._inserts[job.number] = (job, input_)

    def update(self, job: Job) -> None:
        """Write the state of the job, unless its pending insert writes that state too."""
        if job.number not in self._inserts:
            self._updates[job.number] = job

    def add_output(self, job: Job, output: bytes) -> None:
        """Add the output of a job, a JSON text."""
        self._outputs.append((job.number, output))
        self.update(job)

    def add_event(self, job: Job, event: Event) -> None:
        """Add an event of a job."""
        entry = self._events.get(job.number)
        if entry is None:
            self._events[job.number] = (job, [event])
        else:
            entry[1].append(event)
        if job.number not in self._inserts:
            self._updates[job.number] = job

    def trim(self, job: Job, first_seq: int) -> None:
        """Remove the job's events before `first_seq`."""
        self._trims.append((job.number, first_seq))
        self.update(job)

    def delete(self, number: int) -> None:
        """Remove a job with its input, output and events."""
        self._damaged.pop(number, None)
        self._updates.pop(number, None)
        self._deletes.append(number)

    def set_aside(self, number: int, job_id: str, reason: str) -> None:
        """Set a row aside that can't be read."""
        self._damaged[number] = (job_id, reason)

    def withdraw(self, job: Job) -> None:
        """Withdraw the insert of a job that the store refused."""
        self._inserts.pop(job.number, None)
        self._events.pop(job.number, None)
        # A late commit may still write the job, and the outcome of a writer that died is unknown.
        self.delete(job.number)

    def set_value(self, name: str, value: bytes | None) -> None:
        """Store a named value; None removes it."""
        self._values[name] = value

    def contains(self, job: Job) -> bool:
        """Return whether the state of the job is still to be written."""
        return job.number in self._inserts or job.number in self._updates

    def first_event_seq(self, job: Job) -> int | None:
        """Return the sequence number of the job's first event in the batch, None without one."""
        entry = self._events.get(job.number)
        return None if entry is None else entry[1][0].seq

    def has_rows(self) -> bool:
        """Return whether there is any change to commit."""
        return bool(
            self._inserts
            or self._updates
            or self._events
            or self._trims
            or self._deletes
            or self._values
            or self._damaged
        )

    def take_batch(self) -> tuple[WriteBatch, EventsByJob]:
        """Return and forget the rows gathered until now, and the new events for their readers.

        The batch holds the live jobs themselves. The committer must encode them before it awaits anything, as
        their state changes.
        """
        events = list(self._events.values())
        batch = WriteBatch(
            inserts=list(self._inserts.values()),
            updates=list(self._updates.values()),
            outputs=self._outputs,
            events=[
                EventChunk(job.number, row[0].seq, row[-1].seq, _encode(row))
                for job, row in _split_into_rows(events)
            ],
            trims=self._trims,
            deletes=self._deletes,
            values=list(self._values.items()),
            damaged=[(number, *row) for number, row in self._damaged.items()],
        )
        self._inserts, self._updates, self._outputs, self._events = {}, {}, [], {}
        self._trims, self._deletes, self._values, self._damaged = [], [], {}, {}
        return batch, events

    def restore_batch(self, batch: WriteBatch, events: EventsByJob) -> None:
        """Merge a refused batch with the changes gathered since; the later change of a row wins."""
        self._inserts = {job.number: (job, input_) for job, input_ in batch.inserts} | self._inserts
        self._updates = {
            job.number: job for job in batch.updates if job.number not in self._inserts
        } | self._updates
        self._outputs = batch.outputs + self._outputs
        for job, new in events:
            later = self._events.get(job.number)
            self._events[job.number] = (job, new + (later[1] if later else []))
        self._trims = batch.trims + self._trims
        self._deletes = batch.deletes + self._deletes
        self._values = dict(batch.values) | self._values
        self._damaged = {number: (job_id, why) for number, job_id, why in batch.damaged} | self._damaged


def _split_into_rows(entries: EventsByJob) -> Iterator[tuple[Job, list[Event]]]:
    """Split the events of each job into rows."""
    for job, new in entries:
        if len(new) <= SINGLE_ROW_EVENTS_MAX:
            yield job, new
            continue
        start = size = 0
        for end, event in enumerate(new, 1):
            size += len(event.data)
            if size >= EVENT_ROW_BYTES or end == len(new):
                yield job, new[start:end]
                start, size = end, 0
