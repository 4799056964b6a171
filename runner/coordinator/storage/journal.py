"""Effect: group commit: gathers changes, writes them in one transaction, then calls the callbacks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from runner.coordinator.jobs.event_json import build_event
from runner.coordinator.storage.commit_waiters import CommitWaiters, DurabilityCallback
from runner.coordinator.storage.durable_events import DurableEvents
from runner.coordinator.storage.pending_batch import EventsByJob, PendingBatch
from runner.errors import Fenced, StoreUnavailable
from runner.jobs.event import EventType
from runner.jobs.job import Job
from runner.stores.store import WriteBatch

log = logging.getLogger(__name__)

#: Changes without an urgent callback are gathered for this time. Measured: a seventh of the commits.
GATHER_WINDOW_S = 0.005
#: Time between two tries to write while the store refuses writes.
WRITE_RETRY_S = 0.25
#: A commit that takes longer is reported to its callbacks, early enough for a reply within 2 s.
SLOW_COMMIT_S = 1.5
#: A large batch is allowed more time: as much as a store needs that writes at these rates.
ROWS_PER_S_MIN = 5_000
BYTES_PER_S_MIN = 20_000_000


class Committer(Protocol):
    """Commits batches to the store."""

    async def commit(self, epoch: int, batch: WriteBatch) -> None:
        """Commit a batch; return once it is durable.

        Raises:
            StoreUnavailable: nothing of the batch was written, or that is unknown.
            Fenced: a later coordinator has taken over.
        """


class Journal:
    """The only way to write to the store.

    All changes between two commits go into the next one, which writes the state that each job has when the
    commit starts: the insert and the end of a short job are one row. Callbacks of `call_when_durable` run,
    in order, after the commit that holds all changes made before the call. A refused batch is kept and
    written again, merged with later changes.
    """

    def __init__(
        self,
        committer: Committer,
        epoch: int,
        *,
        durable_events: DurableEvents,
        on_fenced: Callable[[Fenced], None],
        on_commit: Callable[[float], None],
        slow_commit_s: float = SLOW_COMMIT_S,
    ) -> None:
        self._committer = committer
        self._epoch = epoch
        self._durable_events = durable_events
        self._on_fenced = on_fenced
        #: Called with the duration of each commit in seconds.
        self._on_commit = on_commit
        self._pending = PendingBatch()
        self._waiters = CommitWaiters()
        self._slow_commit_s = slow_commit_s
        #: Job number -> first event of the job in the commit under way.
        self._committing_first_seq: dict[int, int] = {}
        self._is_committing = False
        self._is_closed = False
        #: Whether `commit_soon` was called since the last commit took its batch.
        self._is_commit_requested = False
        self._timer: asyncio.Handle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        #: Why the store refuses writes now; None while it takes them.
        self.failure: StoreUnavailable | None = None

    def insert(self, job: Job, input_: bytes) -> None:
        """Add a new job."""
        self._pending.insert(job, input_)
        self._schedule_commit()

    def update(self, job: Job) -> None:
        """Write the changed state of a job."""
        self._pending.update(job)
        self._schedule_commit()

    def add_output(self, job: Job, output: bytes) -> None:
        """Add the output of a job that has succeeded, a JSON text."""
        self._pending.add_output(job, output)
        self._schedule_commit()

    def add_event(self, job: Job, kind: EventType, at: float, fields: bytes) -> None:
        """Add an event; readers get it after the commit."""
        self._pending.add_event(job, build_event(job, kind, at, fields))
        self._schedule_commit()

    def trim(self, job: Job, first_seq: int) -> None:
        """Remove events before `first_seq`, for retention."""
        job.first_seq = first_seq
        self._pending.trim(job, first_seq)
        self._schedule_commit()

    def delete(self, number: int) -> None:
        """Remove an ended or damaged job with all its data."""
        self._pending.delete(number)
        self._schedule_commit()

    def set_aside(self, number: int, job_id: str, reason: str) -> None:
        """Set the row of a job aside that can't be read."""
        self._pending.set_aside(number, job_id, reason)
        self._schedule_commit()

    def set_value(self, name: str, value: bytes | None) -> None:
        """Store a named value; None removes it."""
        self._pending.set_value(name, value)
        self._schedule_commit()

    def withdraw(self, job: Job) -> None:
        """Withdraw the insert of a job that was refused; the job was never accepted."""
        self._pending.withdraw(job)
        self._schedule_commit()

    def call_when_durable(
        self, callback: DurabilityCallback, *, is_urgent: bool = True, is_patient: bool = False
    ) -> None:
        """Call `callback` once all changes made until now are durable: with None, or with a failure.

        While the store refuses writes or a commit is late, callbacks get the failure at once, and the writes
        are kept. A callback with `is_patient` waits until they are durable and never gets a failure. Without
        `is_urgent` the commit may wait for more changes, for `GATHER_WINDOW_S`.
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
        """Commit what is changed in this iteration of the event loop, because a client waits.

        The commit begins before anything that is scheduled in the loop after this call.
        """
        self._is_commit_requested = True
        if self._is_committing or self._is_closed or self.failure is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._start_commit()

    async def flush(self) -> None:
        """Wait until all changes made until now are durable.

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
        """Return whether all changes of the job are written; for callbacks of a commit."""
        return not self._pending.contains(job)

    def durable_seq(self, job: Job) -> int:
        """Return the sequence number of the job's last durable event, 0 if none is."""
        if job.number in self._committing_first_seq:
            return self._committing_first_seq[job.number] - 1
        first_seq = self._pending.first_event_seq(job)
        return job.last_seq if first_seq is None else first_seq - 1

    async def close(self) -> None:
        """Write the remaining changes and stop.

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
        # The clock of the loop does not advance during an iteration, and counts whole milliseconds.
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
            self._durable_events.publish(job, new)
        self._waiters.finish_commit()
        if self._is_commit_requested:
            self.commit_soon()
        elif self._waiters or self._pending.has_rows():
            self._schedule_commit()

    async def _write(self, batch: WriteBatch) -> StoreUnavailable | None:
        """Commit the batch; return the failure, or None when the batch is durable."""
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
            # The batch must not be dropped: its changes would be lost, and its callbacks never called.
            log.exception("a commit failed with an unexpected error")
            return StoreUnavailable(f"a commit failed: {error!r}; see the server's log")
        finally:
            self._slow_commit_timer.cancel()
        return None

    def _allow_for_size(self, batch: WriteBatch) -> None:
        """Extend the time limit of a slow commit by the size of its batch."""
        rows = len(batch.inserts) + len(batch.updates) + len(batch.outputs) + len(batch.events)
        payloads = [text for _, text in batch.inserts + batch.outputs]
        allowed_s = rows / ROWS_PER_S_MIN + sum(map(len, payloads)) / BYTES_PER_S_MIN
        self._slow_commit_timer = asyncio.get_running_loop().call_later(allowed_s, self._report_slow_commit)

    def _report_slow_commit(self) -> None:
        """Report a late commit to the callbacks that are not patient; the commit itself continues."""
        failure = StoreUnavailable("the store takes too long to write (locked, or its disk is stuck)")
        if self.failure is None:
            log.error("the store refuses writes: %s", failure.message)
            self.failure = failure
        self._waiters.report_failure(self.failure)

    def _on_refused(self, batch: WriteBatch | None, events: EventsByJob, failure: StoreUnavailable) -> None:
        """Restore the batch, report the failure to its callbacks, and schedule another try."""
        if self.failure is None:
            log.error("the store refuses writes: %s", failure.message)
        self.failure = failure
        if batch is not None:
            self._pending.restore_batch(batch, events)
        self._waiters.abort_commit(failure)
        if self._waiters or self._pending.has_rows():
            self._schedule_commit()
