"""Effect: group commit: gathers what changed, writes it in one transaction, then tells who waited."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from runner.coordinator.storage.commit_waiters import CommitWaiters, DurabilityCallback
from runner.coordinator.storage.pending_batch import EventsByJob, PendingBatch
from runner.errors import Fenced, StoreUnavailable
from runner.jobs.event import Event, EventType
from runner.jobs.job import Job
from runner.stores.store import WriteBatch

log = logging.getLogger(__name__)

#: What nobody waits for may gather for so long; measured to need 7 times fewer commits.
GATHER_WINDOW_S = 0.005
#: While the store refuses writes it is tried again after so long.
WRITE_RETRY_S = 0.25
#: Who waits for a commit that takes longer is told so, in time for an answer within 2 s.
SLOW_COMMIT_S = 1.5
#: A batch may take longer for its size: a store that takes less in a second is in trouble.
ROWS_PER_S_MIN = 5_000
BYTES_PER_S_MIN = 20_000_000


class Committer(Protocol):
    """Where batches go."""

    async def commit(self, epoch: int, batch: WriteBatch) -> None:
        """Raises StoreUnavailable where nothing of it was written."""


class Journal:
    """The one way into the store.

    Everything told to it between two commits goes into the next one, which takes each job's state as
    it is when the commit starts: the insert and the end of a short job are one row. Callbacks given to
    `when_durable` run after the commit that holds all that was told before them, in order.
    """

    def __init__(
        self,
        committer: Committer,
        epoch: int,
        *,
        encode_event: Callable[[Job, EventType, float, bytes], Event],
        on_events: Callable[[Job, list[Event]], None],
        on_fenced: Callable[[Fenced], None],
        on_commit: Callable[[float], None],
        slow_commit_s: float = SLOW_COMMIT_S,
    ) -> None:
        self._committer = committer
        self._epoch = epoch
        self._encode_event = encode_event
        self._on_events = on_events
        self._on_fenced = on_fenced
        #: Told the seconds that each commit took.
        self._on_commit = on_commit
        self._pending = PendingBatch()
        self._waiters = CommitWaiters()
        self._slow_commit_s = slow_commit_s
        #: Events of the commit under way, by job.
        self._committing_first_seq: dict[int, int] = {}
        self._is_committing = False
        self._is_closed = False
        #: Somebody waits for the next commit.
        self._is_commit_requested = False
        #: A commit is due at the end of this turn.
        self._is_start_scheduled = False
        self._timer: asyncio.Handle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        #: Why writes are refused now; None while all is well.
        self.failure: StoreUnavailable | None = None

    def insert(self, job: Job, input_: bytes) -> None:
        """A new job."""
        self._pending.insert(job, input_)
        self._schedule_commit()

    def update(self, job: Job) -> None:
        """The job has changed."""
        self._pending.update(job)
        self._schedule_commit()

    def add_output(self, job: Job, output: bytes) -> None:
        """The job has succeeded with this JSON text."""
        self._pending.add_output(job, output)
        self._schedule_commit()

    def add_event(self, job: Job, kind: EventType, at: float, fields: bytes) -> None:
        """Add an event; readers get it after the commit."""
        self._pending.add_event(job, self._encode_event(job, kind, at, fields))
        self._schedule_commit()

    def trim(self, job: Job, first_seq: int) -> None:
        """Retention: events before `first_seq` may go."""
        job.first_seq = first_seq
        self._pending.trim(job, first_seq)
        self._schedule_commit()

    def delete(self, job: Job) -> None:
        """Remove an ended job with all that is its."""
        self._pending.delete(job)
        self._schedule_commit()

    def set_value(self, name: str, value: bytes | None) -> None:
        """Remember a named value; None forgets it."""
        self._pending.set_value(name, value)
        self._schedule_commit()

    def withdraw(self, job: Job) -> None:
        """Take back an insert that was refused; the job was never accepted."""
        self._pending.withdraw(job)
        self._schedule_commit()

    def call_when_durable(
        self, callback: DurabilityCallback, *, is_urgent: bool = True, is_patient: bool = False
    ) -> None:
        """Call after the commit of all that was told until now: with None, or why it failed.

        While the store refuses, or a commit is late, calls are made with the failure at once and the
        writes are kept; a `patient` call waits until they are durable and is never told of a failure.
        """
        if self.failure is not None and not is_patient:
            callback(self.failure)
            return
        self._waiters.add(callback, is_patient=is_patient)
        if is_urgent:
            self.commit_soon()
        else:
            self._schedule_commit()

    def commit_soon(self) -> None:
        """Somebody waits: commit at the end of this turn of the loop."""
        self._is_commit_requested = True
        if self._is_start_scheduled or self._is_committing or self._is_closed or self.failure is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._is_start_scheduled = True
        self._timer = asyncio.get_running_loop().call_soon(self._start_commit)

    async def flush(self) -> None:
        """Wait until all that was told is durable.

        Raises:
            StoreUnavailable: the store refuses writes, or a commit is late.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle(failure: StoreUnavailable | None) -> None:
            if done.done():
                return
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(failure)

        self.call_when_durable(settle)
        await done

    def is_written(self, job: Job) -> bool:
        """Whether nothing new is to be written of the job; for those who are told of a commit."""
        return not self._pending.contains(job)

    def durable_seq(self, job: Job) -> int:
        """The sequence number of the job's last event that is durable."""
        if job.number in self._committing_first_seq:
            return self._committing_first_seq[job.number] - 1
        first_seq = self._pending.first_event_seq(job)
        return job.last_seq if first_seq is None else first_seq - 1

    async def close(self) -> None:
        """Write what is left and stop.

        Raises:
            StoreUnavailable: the store refuses writes, or a commit is late; a late one may still go through.
        """
        try:
            await self.flush()
        finally:
            self._is_closed = True
            if self._timer is not None:
                self._timer.cancel()
        await self._idle.wait()

    def _schedule_commit(self) -> None:
        if self._timer is None and not self._is_committing and not self._is_closed:
            self._timer = asyncio.get_running_loop().call_later(
                GATHER_WINDOW_S if self.failure is None else WRITE_RETRY_S, self._start_commit
            )

    def _start_commit(self) -> None:
        self._timer = None
        self._is_start_scheduled = False
        if self._is_committing or self._is_closed:
            return
        self._is_committing = True
        self._idle.clear()
        task = asyncio.get_running_loop().create_task(self._commit())
        task.add_done_callback(lambda done: done.result())

    async def _commit(self) -> None:
        self._is_commit_requested = False
        self._waiters.start_commit()
        batch, events = self._pending.take_batch() if self._pending.has_rows() else (None, [])
        self._committing_first_seq = {job.number: new[0].seq for job, new in events}
        # The loop's own clock stands still during a turn, and counts whole milliseconds.
        started_mono = time.monotonic()
        failure = None if batch is None else await self._write(batch)
        self._is_committing = False
        self._committing_first_seq = {}
        self._idle.set()
        if failure is not None:
            self._on_refused(batch, events, failure)
            return
        if batch is not None:
            self._on_commit(time.monotonic() - started_mono)
        if self.failure is not None:
            log.info("the store takes writes again")
            self.failure = None
        for job, new in events:
            try:
                self._on_events(job, new)
            except Exception:
                log.exception("the events of job %s could not be passed on", job.id)
        self._waiters.finish_commit()
        if self._is_commit_requested:
            self.commit_soon()
        elif self._waiters or self._pending.has_rows():
            self._schedule_commit()

    async def _write(self, batch: WriteBatch) -> StoreUnavailable | None:
        """Commit; why it failed, if it did."""
        self._slow_commit_timer = asyncio.get_running_loop().call_later(
            self._slow_commit_s, self._allow_for_size, batch
        )
        try:
            await self._committer.commit(self._epoch, batch)
        except Fenced as fenced:
            self._is_closed = True
            self._on_fenced(fenced)
            return fenced
        except StoreUnavailable as refused:
            return refused
        except Exception as error:
            # Dropped, the batch would be lost and who waits for it would wait for ever.
            log.exception("a commit failed in a way that nobody foresaw")
            return StoreUnavailable(f"a commit failed: {error!r}; see the server's log")
        finally:
            self._slow_commit_timer.cancel()
        return None

    def _allow_for_size(self, batch: WriteBatch) -> None:
        """The commit under way is slow: what may it still take, for what it has to write?"""
        rows = len(batch.inserts) + len(batch.updates) + len(batch.outputs) + len(batch.events)
        payloads = [text for _, text in batch.inserts + batch.outputs]
        allowed_s = rows / ROWS_PER_S_MIN + sum(map(len, payloads)) / BYTES_PER_S_MIN
        self._slow_commit_timer = asyncio.get_running_loop().call_later(allowed_s, self._report_slow_commit)

    def _report_slow_commit(self) -> None:
        """The commit under way is late. It goes on, but those who can give up need not wait for it."""
        failure = StoreUnavailable("the store takes too long to write (locked, or its disk is stuck)")
        if self.failure is None:
            log.error("the store refuses writes: %s", failure.message)
            self.failure = failure
        self._waiters.report_failure(self.failure)

    def _on_refused(self, batch: WriteBatch | None, events: EventsByJob, failure: StoreUnavailable) -> None:
        """Put the batch back, answer who waited, and try again later."""
        if self.failure is None:
            log.error("the store refuses writes: %s", failure.message)
        self.failure = failure
        if batch is not None:
            self._pending.restore_batch(batch, events)
        self._waiters.abort_commit(failure)
        if self._waiters or self._pending.has_rows():
            self._schedule_commit()
