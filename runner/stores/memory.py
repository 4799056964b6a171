"""Effect: a store in the memory of this process, for tests and for servers that need no durability."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from runner.errors import Fenced, RunnerError
from runner.jobs.event import Event
from runner.jobs.job import Job
from runner.jobs.job_query import JobQuery
from runner.stores.damaged_row import DAMAGED, DamagedRow
from runner.stores.event_page import take_events
from runner.stores.queued_groups import GroupKey, StoredGroup, group_key, to_millis
from runner.stores.store import SearchPage, WriteBatch

_encode = msgspec.msgpack.Encoder().encode
_job_decoder = msgspec.msgpack.Decoder(Job)
_events_decoder = msgspec.msgpack.Decoder(list[Event])

_MISSING = object()


class MemoryStore:
    """A `Store` whose data are lost at the end of the process.

    Jobs are copied when they are stored and when they are returned: a later change by a caller has no effect
    before the next commit.
    """

    def __init__(self) -> None:
        #: Number of updates dropped because a later attempt was stored already.
        self.stale_updates = 0
        self._epoch = 0
        #: The highest job number ever stored; it outlives its job.
        self._last_n = 0
        self._jobs: dict[int, Job] = {}
        self._numbers_by_id: dict[str, int] = {}
        self._inputs: dict[int, bytes] = {}
        self._outputs: dict[int, bytes] = {}
        #: Job number -> first_seq of a chunk -> (its last_seq, its events).
        self._events: dict[int, dict[int, tuple[int, list[Event]]]] = {}
        self._values: dict[str, bytes] = {}
        #: Rows that are set aside, by number.
        self._damaged: dict[int, DamagedRow] = {}

    def take_epoch(self) -> int:
        """See `Store.take_epoch`."""
        self._epoch += 1
        return self._epoch

    def current_epoch(self) -> int:
        """See `Store.current_epoch`."""
        return self._epoch

    def commit(self, epoch: int, batch: WriteBatch) -> None:
        """See `Store.commit`. Everything is checked before the first change: there is no rollback."""
        if epoch != self._epoch:
            raise Fenced(f"epoch {self._epoch} is in force, this coordinator has {epoch}: it must stop")
        self._refuse_conflicts(batch)
        for job, body in batch.inserts:
            self._jobs[job.number] = _copy(job)
            self._numbers_by_id[job.id] = job.number
            self._inputs[job.number] = body
            self._last_n = max(self._last_n, job.number)
        stale = self._update(batch.updates)
        self._outputs.update(output for output in batch.outputs if output[0] not in stale)
        for chunk in batch.events:
            if chunk.job_number not in stale:
                chunks = self._events.setdefault(chunk.job_number, {})
                chunks[chunk.first_seq] = (chunk.last_seq, _events_decoder.decode(chunk.body))
        for number, seq in batch.trims:
            chunks = self._events.get(number, {})
            for first in [first for first, (last, _) in chunks.items() if last < seq]:
                del chunks[first]
        for number in batch.deletes:
            self._delete(number)
        for name, value in batch.values:
            if value is None:
                self._values.pop(name, None)
            else:
                self._values[name] = value
        for number, _, why in batch.damaged:
            self._set_aside(number, why)

    def find_jobs(self, query: JobQuery) -> list[Job]:
        """See `Store.find_jobs`."""
        return self.search_jobs(query, rows_max=sys.maxsize, limit_s=math.inf).jobs

    def search_jobs(self, query: JobQuery, *, rows_max: int, limit_s: float) -> SearchPage:
        """See `Store.search_jobs`."""
        deadline_mono = time.monotonic() + limit_s
        if query.ids is not None:
            known = {self._numbers_by_id[id] for id in query.ids if id in self._numbers_by_id}
            numbers = sorted(known - self._damaged.keys())
        else:
            numbers = sorted(self._jobs)
        if query.order == "desc":
            numbers.reverse()
        matches = self._matcher(query)
        found: list[Job] = []
        looked = 0
        last: int | None = None
        for number in numbers:
            if len(found) >= query.limit:
                break
            job = self._jobs[number]
            if not _matches_lists(job, query) or not _matches_bounds(job, query):
                continue
            if looked >= rows_max or (looked and time.monotonic() >= deadline_mono):
                return SearchPage(found, last)
            looked += 1
            last = number
            if matches(job):
                found.append(_copy(job))
        return SearchPage(found)

    def load_running_jobs(self) -> list[Job]:
        """See `Store.load_running_jobs`."""
        return [
            _copy(self._jobs[number])
            for number in sorted(self._jobs)
            if self._jobs[number].state == "running"
        ]

    def load_queued_groups(self, now: float) -> list[StoredGroup]:
        """See `Store.load_queued_groups`."""
        groups: dict[GroupKey, StoredGroup] = {}
        for job in self._jobs.values():
            if job.state != "queued":
                continue
            key = group_key(job)
            group = groups.setdefault(key, StoredGroup(key))
            start_by = job.start_by
            is_delayed = job.ready_at > now and job.reason is not None
            group.add(
                job.number,
                to_millis(job.ready_at) if is_delayed else 0,
                0 if start_by is None else to_millis(start_by),
                job.reason or "",
            )
            if not is_delayed:
                group.add_ready_time(min(job.ready_at, now))
        return list(groups.values())

    def load_jobs(self, numbers: Sequence[int]) -> list[Job]:
        """See `Store.load_jobs`."""
        return [_copy(self._jobs[number]) for number in sorted(set(numbers)) if number in self._jobs]

    def load_payload(self, number: int, which: Literal["input", "output"]) -> bytes | None:
        """See `Store.load_payload`."""
        return (self._inputs if which == "input" else self._outputs).get(number)

    def load_payloads(self, numbers: Sequence[int], which: Literal["input", "output"]) -> dict[int, bytes]:
        """See `Store.load_payloads`."""
        payloads = self._inputs if which == "input" else self._outputs
        return {number: payloads[number] for number in numbers if number in payloads}

    def load_events(self, number: int, after: int, max_bytes: int) -> list[Event]:
        """See `Store.load_events`."""
        chunks = self._events.get(number, {})
        return take_events(
            (event for _, (last, events) in sorted(chunks.items()) if last > after for event in events),
            after,
            max_bytes,
        )

    def load_values(self, prefix: str) -> dict[str, bytes]:
        """Return values whose name begins with `prefix`."""
        return {name: value for name, value in sorted(self._values.items()) if name.startswith(prefix)}

    def count_jobs(self) -> dict[tuple[str, str], int]:
        """See `Store.count_jobs`."""
        counts: dict[tuple[str, str], int] = Counter((job.queue, job.state) for job in self._jobs.values())
        return counts | {("", DAMAGED): len(self._damaged)} if self._damaged else dict(counts)

    def take_damaged(self) -> list[DamagedRow]:
        """See `Store.take_damaged`: nothing in memory is damaged."""
        return []

    def find_damaged(self, job_id: str) -> DamagedRow | None:
        """See `Store.find_damaged`."""
        return next((row for row in self._damaged.values() if row.id == job_id), None)

    def list_set_aside(self, above: int, below: int, limit: int) -> list[DamagedRow]:
        """See `Store.list_set_aside`."""
        return [row for number, row in sorted(self._damaged.items()) if above < number < below][:limit]

    def last_job_number(self) -> int:
        """See `Store.last_job_number`."""
        return self._last_n

    def close(self) -> None:
        """Do nothing: no resource is held, and the data last as long as the object."""

    def _refuse_conflicts(self, batch: WriteBatch) -> None:
        """Raise RunnerError if an insert has the number or the id of another job.

        The same job may be inserted again, as a batch of unknown outcome is committed twice.
        """
        taken: dict[str, int] = {}
        for job, _ in batch.inserts:
            known = self._jobs.get(job.number)
            if known is not None and (known.id != job.id or known.attempt > job.attempt):
                raise RunnerError("a new job has the number of one that is stored already")
            if (
                self._numbers_by_id.get(job.id, job.number) != job.number
                or taken.setdefault(job.id, job.number) != job.number
            ):
                raise RunnerError(f"a new job has the id {job.id} of one that is stored already")

    def _update(self, updates: list[Job]) -> set[int]:
        """Store the jobs; return the numbers of those that a later attempt or a delete has superseded."""
        stale: set[int] = set()
        for job in updates:
            known = self._jobs.get(job.number)
            if known is None or known.attempt > job.attempt:
                stale.add(job.number)
            else:
                self._jobs[job.number] = _copy(job)
        self.stale_updates += len(stale)
        return stale

    def _set_aside(self, number: int, why: str) -> None:
        job = self._jobs.pop(number, None)
        if job is not None:
            self._damaged[number] = DamagedRow(number, job.id, why, "", DAMAGED)

    def _delete(self, number: int) -> None:
        row = self._damaged.pop(number, None)
        if row is not None:
            del self._numbers_by_id[row.id]
        job = self._jobs.pop(number, None)
        if job is not None:
            del self._numbers_by_id[job.id]
        for table in (self._inputs, self._outputs, self._events):
            table.pop(number, None)

    def _matcher(self, query: JobQuery) -> Callable[[Job], bool]:
        """Return the test of a job's input, which must be decoded for it."""
        wanted_inputs = [(path, msgspec.json.decode(text)) for path, text in query.inputs or ()]

        def matches(job: Job) -> bool:
            if not wanted_inputs:
                return True
            document = msgspec.json.decode(self._inputs[job.number])
            return all(_input_equals(document, path.split("."), wanted) for path, wanted in wanted_inputs)

        return matches


def _copy(job: Job) -> Job:
    return _job_decoder.decode(_encode(job))


def _matches_lists(job: Job, query: JobQuery) -> bool:
    return (
        (query.states is None or job.state in query.states)
        and (query.reasons is None or job.reason in query.reasons)
        and (query.handlers is None or job.handler in query.handlers)
        and (query.queues is None or job.queue in query.queues)
        and (query.tenants is None or (job.terms.tenant or None) in query.tenants)
        and (query.tags is None or any(tag in query.tags for tag in job.terms.tags))
    )


def _matches_bounds(job: Job, query: JobQuery) -> bool:
    """Return whether the job lies strictly within the query's times and behind its cursor."""
    finished = job.finished_at
    filters_finished = query.finished_after is not None or query.finished_before is not None
    if filters_finished and finished is None:
        return False
    bounds = (
        (query.created_after, job.created_at),
        (job.created_at, query.created_before),
        (query.finished_after, finished),
        (finished if filters_finished else None, query.finished_before),
        (query.cursor, job.number) if query.order == "asc" else (job.number, query.cursor),
    )
    return all(low is None or high is None or low < high for low, high in bounds)


def _input_equals(document: object, path_parts: list[str], wanted: object) -> bool:
    """Return whether the document has this scalar at the path; types are strict (`1` is not `true`).

    A numeric part of the path is an index into a list and a key of an object.
    """
    value = document
    for part in path_parts:
        if isinstance(value, list) and part.isascii() and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else _MISSING
        elif isinstance(value, dict):
            value = value.get(part, _MISSING)
        else:
            return False
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(value, int | float) and isinstance(wanted, int | float):
        return value == wanted
    return isinstance(value, str | None) and isinstance(wanted, str | None) and value == wanted
