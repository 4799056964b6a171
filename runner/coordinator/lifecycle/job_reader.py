"""Effect: reads jobs that are not in memory from the store, with inputs, outputs and events.

A row may be older than memory: the store holds what was committed. All methods raise StoreUnavailable if the
store can't be read.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal

from runner.coordinator.jobs import job_json
from runner.coordinator.jobs.event_json import INLINE_MAX_BYTES
from runner.coordinator.jobs.explanations import WaitStatus
from runner.coordinator.jobs.job_registry import JobRegistry, LiveJob
from runner.coordinator.lifecycle.damaged_jobs import DamagedJobs
from runner.coordinator.lifecycle.shown_job import shown_job
from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.storage.journal import Journal
from runner.errors import JobDamaged, NotFound
from runner.jobs import cursor as cursors
from runner.jobs.event import Event
from runner.jobs.job import ENDED, Job
from runner.jobs.job_query import JobQuery
from runner.stores.damaged_row import DamagedRow
from runner.stores.sqlite.access import StoreAccess
from runner.stores.store import SearchPage, Store

#: A filter by a reason that only memory knows may read many rows: this is the limit in pages.
FILTER_PAGES_MAX = 20
#: Inputs and outputs up to this size are read for a whole page in one statement.
BULK_READ_MAX_BYTES = 4096
#: Damaged jobs that a page of a list names.
DAMAGED_IDS_MAX = 500
#: The largest job number that SQLite holds.
NUMBER_MAX = 2**63 - 1


class JobReader:
    """Reads in the threads of the store's two readers; nothing here changes a job.

    Rows and inputs that jobs need to start are read without waiting for the other reads.
    """

    def __init__(self, access: StoreAccess, journal: Journal) -> None:
        self._access = access
        self._journal = journal
        #: Set by `connect`, before the first job is read.
        self._damaged_jobs: DamagedJobs | None = None

    async def require_job(self, job_id: str) -> Job:
        """Return the row of this id.

        Raises:
            NotFound: there is none.
            JobDamaged: the row can't be read.
        """
        job, damaged = await self._access.run_read(partial(_find_row, job_id=job_id))
        damaged = damaged or self._find_set_aside(job_id)
        if damaged is not None:
            raise JobDamaged(f"job {job_id} is damaged: {damaged.reason}; DELETE removes it")
        if job is None:
            raise NotFound(f"there is no job {job_id}")
        return job

    async def find_damaged(self, job_id: str) -> DamagedRow | None:
        """Return the row of this id if it is set aside or can't be read."""
        return self._find_set_aside(job_id) or await self._access.run_read(
            lambda store: store.find_damaged(job_id)
        )

    def _find_set_aside(self, job_id: str) -> DamagedRow | None:
        return None if self._damaged_jobs is None else self._damaged_jobs.by_id.get(job_id)

    def report_damaged(self, job: Job) -> None:
        """See `RowReader.report_damaged`."""
        why = "its columns and its body contradict each other"
        assert self._damaged_jobs is not None
        self._damaged_jobs.set_aside([DamagedRow(job.number, job.id, why, job.queue, job.state)])

    def connect(self, damaged_jobs: DamagedJobs) -> None:
        """Set what gets the damaged jobs that reads find, those before too."""
        self._damaged_jobs = damaged_jobs
        self._access.connect(damaged_jobs.set_aside)

    async def find_job(self, job_id: str) -> Job | None:
        """Return the row of this id, if there is one that can be read."""
        found = await self._access.run_read(lambda store: store.find_jobs(JobQuery(ids=[job_id], limit=1)))
        return found[0] if found else None

    async def load_rows(self, numbers: Sequence[int]) -> list[tuple[Job, bytes | None]]:
        """Read the rows of queued jobs, with their inputs if these are small."""

        def read(store: Store) -> list[tuple[Job, bytes | None]]:
            jobs = store.load_jobs(numbers)
            small = [job.number for job in jobs if job.input_bytes <= BULK_READ_MAX_BYTES]
            inputs = store.load_payloads(small, "input")
            return [(job, inputs.get(job.number)) for job in jobs]

        return await self._access.run_urgent_read(read)

    async def load_input(self, number: int) -> bytes:
        """Read a job's input as JSON text."""
        return await self._access.run_read(lambda store: store.load_payload(number, "input")) or b"null"

    async def load_inputs(self, numbers: Sequence[int]) -> Mapping[int, bytes]:
        """Read the inputs of several jobs at once; damaged ones are left out."""
        return await self._access.run_urgent_read(partial(_read_inputs, numbers=numbers))

    async def load_output(self, job: Job) -> bytes:
        """Read an ended job's output as JSON text.

        Raises:
            NotFound: the job did not succeed.
        """
        if job.state != "succeeded":
            code = job.error.code if job.error is not None else None
            raise NotFound(f"job {job.id} ended as {job.state} ({code}) and has no output")
        return await self._access.run_read(lambda store: store.load_payload(job.number, "output")) or b"null"

    async def load_events(self, number: int, after: int, max_bytes: int) -> list[Event]:
        """Read the durable events with seq > after, in order: about `max_bytes` of them, at least one."""
        return await self._access.run_read(lambda store: store.load_events(number, after, max_bytes))

    def durable_seq(self, job: Job) -> int:
        """The last durable event of a live job; memory may be ahead of it."""
        return self._journal.durable_seq(job)

    async def job_json(
        self, job: Job, reason: str | None, *, full: bool = True, wait: WaitStatus | None = None
    ) -> bytes:
        """The document of a job that is not in memory, as JSON text."""

        def read(store: Store) -> bytes:
            return _read_document(store, job, reason, full=full, wait=wait)

        return await self._access.run_read(read)

    async def list_json(self, query: JobQuery, registry: JobRegistry, queue_manager: QueueManager) -> bytes:
        """The document of GET /jobs, in the query's order, with the state of live jobs as memory has it.

        A filter by reason reads at most `FILTER_PAGES_MAX` pages, and a filter by input searches for a
        bounded time; the page may then be short, with a cursor to continue from.

        Raises:
            StoreUnavailable: the store can't be read, or refuses the end of a job of the page.
            Unavailable: too many lists search in inputs.
        """
        if self._journal.failure is None:
            await self._journal.flush()
        wanted_reasons = query.reasons
        shown: list[tuple[Job, str | None]] = []
        cursor = query.cursor
        has_more = True
        for _ in range(FILTER_PAGES_MAX):
            page = await self._find_page(query, cursor)
            rows = page.jobs
            has_more = len(rows) > query.limit or page.stopped_at is not None
            stored = await self._reread_ended(rows[: query.limit], registry)
            for job in rows[: query.limit]:
                cursor = job.number
                row = stored.get(cursor, job)
                if row is None:
                    continue
                live = registry.by_number.get(cursor)
                current, reason = _current_state(row, live, queue_manager, self._journal)
                if (wanted_reasons is not None and reason not in wanted_reasons) or not _still_matches(
                    query, current
                ):
                    continue
                shown.append((current, reason))
                if len(shown) == query.limit:
                    has_more = has_more or job is not rows[-1]
                    break
            else:
                if page.stopped_at is not None and len(rows) <= query.limit:
                    cursor = page.stopped_at
                    break
            if not has_more or wanted_reasons is None or len(shown) == query.limit:
                break
        # One access to the reader for the whole page: an access for each row took 0.2 ms a row.
        encoded = await self._access.run_read(lambda store: _read_documents(store, shown))
        damaged_ids = await self._damaged_ids(query, cursor if has_more else None)
        return job_json.list_document(
            encoded, cursors.encode(cursor) if has_more and cursor is not None else None, damaged_ids
        )

    async def _find_page(self, query: JobQuery, cursor: int | None) -> SearchPage:
        # One row more than requested shows whether there is a next page. The caller filters by reason: most
        # reasons are known to memory alone.
        fields = {name: getattr(query, name) for name in query.__struct_fields__}
        page_query = JobQuery(**fields | {"cursor": cursor, "limit": query.limit + 1, "reasons": None})
        if query.inputs:
            return await self._access.search_jobs(page_query)
        return SearchPage(await self._access.run_read(lambda store: store.find_jobs(page_query)))

    async def _reread_ended(self, rows: Sequence[Job], registry: JobRegistry) -> dict[int, Job | None]:
        """Return new rows, by number, of jobs that may have ended after their row was read; None if deleted.

        Memory may have shown such a job as running by now: its older row would turn it back.
        """
        old: list[int] = []
        has_ended = False
        for job in rows:
            live = registry.by_number.get(job.number)
            if live is not None and live.phase == "ended":
                has_ended = True
            elif live is not None or job.state in ENDED:
                continue
            old.append(job.number)
        if not old:
            return {}
        if has_ended:
            await self._journal.flush()
        stored = await self._access.run_read(lambda store: store.load_jobs(old))
        return dict.fromkeys(old) | {job.number: job for job in stored}

    async def _damaged_ids(self, query: JobQuery, cursor: int | None) -> list[str]:
        """The ids of the damaged jobs between the two ends of a page; whether they match is not known."""
        if self._damaged_jobs is None or not self._damaged_jobs.count:
            return []
        start, end = query.cursor, cursor
        above, below = (start, end) if query.order == "asc" else (end, start)
        # The page's last row itself is shown, so that both bounds are open.
        bounds = (-1 if above is None else above, NUMBER_MAX if below is None else below)
        rows = await self._access.run_read(lambda store: store.list_set_aside(*bounds, DAMAGED_IDS_MAX))
        return [row.id for row in rows]

    async def existing_ids(self, ids: list[str]) -> set[str]:
        """Return those of the ids that are in the store."""
        return await self._access.run_read(partial(_existing_ids, ids=ids))


def _existing_ids(store: Store, ids: list[str]) -> set[str]:
    found = {job.id for job in store.find_jobs(JobQuery(ids=ids, limit=len(ids)))}
    return found | {job_id for job_id in set(ids) - found if store.find_damaged(job_id) is not None}


def _find_row(store: Store, job_id: str) -> tuple[Job | None, DamagedRow | None]:
    found = store.find_jobs(JobQuery(ids=[job_id], limit=1))
    return (found[0], None) if found else (None, store.find_damaged(job_id))


def _read_inputs(store: Store, numbers: Sequence[int]) -> dict[int, bytes]:
    inputs: dict[int, bytes] = {}
    for number in numbers:
        with suppress(JobDamaged):
            inputs[number] = store.load_payload(number, "input") or b"null"
    return inputs


def _current_state(
    job: Job, live: LiveJob | None, queue_manager: QueueManager, journal: Journal
) -> tuple[Job, str | None]:
    """The job as memory has it, in a copy: it may change while its page is being read.

    The row of a job that has ended was read after its end, see `_reread_ended`.
    """
    if live is None or live.phase == "ended":
        return job, queue_manager.reasons.for_stored_job(job)
    shown = shown_job(live, journal)
    if shown is not live.job:
        return shown, "ready"
    return copy.copy(shown), queue_manager.reasons.for_live_job(live)


def _still_matches(query: JobQuery, job: Job) -> bool:
    """Whether the job still matches: memory may be ahead of the row that was found."""
    return query.states is None or job.state in query.states


def _read_document(
    store: Store, job: Job, reason: str | None, *, full: bool, wait: WaitStatus | None
) -> bytes:
    limit = None if full else INLINE_MAX_BYTES
    input_ = store.load_payload(job.number, "input") if _has_payload(job, "input", limit) else None
    output = store.load_payload(job.number, "output") if _has_payload(job, "output", limit) else None
    return job_json.job_document(job, reason, input_, output, full=full, wait=wait)


def _read_documents(store: Store, rows: Sequence[tuple[Job, str | None]]) -> list[bytes]:
    """The documents of a page: small inputs and outputs are read together, the others one by one."""
    inputs = store.load_payloads(
        [job.number for job, _ in rows if _has_payload(job, "input", BULK_READ_MAX_BYTES)], "input"
    )
    outputs = store.load_payloads(
        [job.number for job, _ in rows if _has_payload(job, "output", BULK_READ_MAX_BYTES)], "output"
    )
    encoded: list[bytes] = []
    for job, reason in rows:
        try:
            if _has_payload(job, "input", INLINE_MAX_BYTES) and job.number not in inputs:
                inputs[job.number] = store.load_payload(job.number, "input") or b"null"
            if _has_payload(job, "output", INLINE_MAX_BYTES) and job.number not in outputs:
                outputs[job.number] = store.load_payload(job.number, "output") or b"null"
        except JobDamaged:
            # Reported by the read; one damaged job must not fail its whole page.
            continue
        encoded.append(
            job_json.job_document(job, reason, inputs.get(job.number), outputs.get(job.number), full=False)
        )
    return encoded


def _has_payload(job: Job, which: Literal["input", "output"], limit: int | None) -> bool:
    """Whether there is an input or output, of at most `limit` bytes."""
    if which == "output" and job.state != "succeeded":
        return False
    size = job.input_bytes if which == "input" else job.output_bytes or 0
    return limit is None or size <= limit
