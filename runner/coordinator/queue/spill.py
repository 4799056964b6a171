"""Effect: spills queued jobs to the store when there are too many, and loads them back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from runner.coordinator.jobs.job_registry import JobRegistry, LiveJob
from runner.coordinator.queue.queued_index import QueuedIndex
from runner.coordinator.runtime.clock import Clock
from runner.coordinator.storage.journal import Journal
from runner.errors import JobDamaged, RunnerError, StoreUnavailable
from runner.jobs.job import Job

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Inputs of queued jobs stay in memory up to this sum; the others are read when they are needed.
INPUTS_MAX_BYTES = 64 * 1024 * 1024
#: A failed read is retried after this time.
READ_RETRY_S = 1.0
#: The number of lookups of a job that changes while its row is read.
LOAD_TRIES = 10


class RowReader(Protocol):
    """Reads jobs from the store."""

    async def load_rows(self, numbers: Sequence[int]) -> list[tuple[Job, bytes | None]]:
        """Read rows by their numbers, together with small inputs."""

    async def find_job(self, job_id: str) -> Job | None:
        """Read a row by its id; None if there is none."""

    def report_damaged(self, job: Job) -> None:
        """Report a job whose columns and body contradict each other."""


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """Bounds on the queued jobs that are kept in memory."""

    #: Below this number of live jobs none is spilled.
    kept_jobs_max: int = 20_000  # guard: spill-kept
    #: Window of a class in the planner's state; it is refilled when half of it is used up.
    window_jobs: int = 2_000  # guard: spill-window
    #: From this number of live jobs on, classes get the small window.
    large_backlog_jobs: int = 50_000  # guard: spill-live
    small_window_jobs: int = 32  # guard: spill-small-window
    #: Rows in one read.
    rows_per_read: int = 1_000  # guard: spill-read-rows
    #: Jobs due at one moment are handled in portions of this size, one per iteration of the event loop.
    due_per_turn: int = 1_000  # guard: spill-due


async def read_with_retry(
    read: Callable[[Sequence[int]], Awaitable[Result]], numbers: Sequence[int], what: str
) -> Result:
    """Return what `read` finds for these job numbers; retry each second until a read succeeds.

    `what` names the rows in the log.
    """
    while True:
        try:
            return await read(numbers)
        except Exception:
            # Without a retry the jobs would wait, or hold an executor, without end; the store may recover.
            log.exception("failed to read %s (%d jobs); retrying in %g s", what, len(numbers), READ_RETRY_S)
        await asyncio.sleep(READ_RETRY_S)


class SpillPool:
    """Keeps queued jobs in memory up to a number, and their inputs up to a sum of bytes.

    Reads run concurrently with changes: a row that was read before its job was spilled again is outdated and
    is not restored.
    """

    def __init__(
        self,
        *,
        registry: JobRegistry,
        index: QueuedIndex,
        journal: Journal,
        row_reader: RowReader,
        clock: Clock,
        bounds: QueueBounds,
    ) -> None:
        self._registry = registry
        self._index = index
        self._journal = journal
        self._row_reader = row_reader
        self._clock = clock
        self._bounds = bounds
        #: Bytes of the inputs in memory.
        self.input_bytes = 0
        #: Reads in progress.
        self._reads_in_progress = 0
        #: Counts spilled jobs.
        self._spill_count = 0
        #: Jobs spilled while reads were in progress, with the count at that time: a row read before is
        #: outdated.
        self._spilled_during_reads: dict[int, int] = {}

    def maybe_spill(self, live: LiveJob) -> None:
        """Spill a job that is `behind` or `delayed` as soon as it is durable, if memory holds enough jobs."""
        if len(self._registry) > self._bounds.kept_jobs_max:
            self._journal.call_when_durable(lambda _: self._spill(live), is_urgent=False, is_patient=True)

    async def load(self, numbers: Sequence[int]) -> None:
        """Load these jobs back, as far as they still wait behind others or for their start time.

        Returns when all of them were read; retries while the store can't be read.
        """
        with self._track_read() as count_before:
            rows = await read_with_retry(self._row_reader.load_rows, numbers, "queued jobs")
            for job, input_ in rows:
                self._restore(job, input_, count_before)
            found = {job.number: job for job, _ in rows}
            for number in numbers:
                if (
                    number in self._registry.by_number
                    or self._spilled_during_reads.get(number, 0) > count_before
                    # A job that has left the queue during the read is not in the index either.
                    or not self._index.discard_number(number)
                ):
                    continue
                # Left in the index, it would stop its class: it is the first one, and can't be loaded.
                if number in found:
                    self._row_reader.report_damaged(found[number])
                else:
                    log.error("job number %d is queued, but the store does not hold it", number)

    async def load_job(self, job_id: str) -> LiveJob | None:
        """Return the job as a live one; None if it has ended or does not exist.

        Raises:
            StoreUnavailable: its row can't be read.
            JobDamaged: the queue holds the job elsewhere than its row says, after `LOAD_TRIES` reads.
            RunnerError: the queue does not hold it at all.
        """
        for _ in range(LOAD_TRIES):
            live = self._registry.by_id.get(job_id)
            if live is not None:
                return live
            with self._track_read() as count_before:
                job = await self._row_reader.find_job(job_id)
                if job is not None and job.state in ("queued", "running"):
                    self._restore(job, None, count_before)
            if job is None or job.state not in ("queued", "running"):
                return self._registry.by_id.get(job_id)
        if job is not None and self._index.discard_number(job.number):
            self._row_reader.report_damaged(job)
            raise JobDamaged(f"job {job_id} is not in the queue that its row names; DELETE removes it")
        raise RunnerError(f"job {job_id} is neither in memory nor in the queue that the store names")

    def keep_input(self, live: LiveJob, text: bytes) -> None:
        """Keep an input in memory that was read from the store."""
        if live.input is None:
            live.keep_input(text)
            # A job that was spilled during the read does not stay in memory.
            self.input_bytes += live.job.input_bytes if live.phase != "spilled" else 0

    def drop_input(self, live: LiveJob, failure: StoreUnavailable | None = None) -> None:
        """Drop the input of a queued job from memory: it is durable, or not needed any more.

        With a `failure` the store does not hold the input, and memory keeps it.
        """
        if failure is None and live.phase in ("waiting", "delayed", "behind") and live.input is not None:
            live.drop_input()
            self.input_bytes -= live.job.input_bytes

    def _spill(self, live: LiveJob) -> None:
        """Spill a job whose row is up to date, unless a client waits for its end."""
        if live.phase not in ("behind", "delayed") or live.end_callbacks or live.has_unused_attempt:
            return
        # The job has changed since: its row is not up to date yet.
        if not self._journal.is_written(live.job):
            return
        if live.input is not None:
            # The input itself stays with the object: its submitter is about to be answered.
            self.input_bytes -= live.job.input_bytes
        live.mark_spilled()
        self._registry.remove(live)
        self._spill_count += 1
        if self._reads_in_progress:
            self._spilled_during_reads[live.job.number] = self._spill_count

    @contextmanager
    def _track_read(self) -> Iterator[int]:
        """Track a read; yield the spill count before it, which shows the jobs that are spilled meanwhile."""
        self._reads_in_progress += 1
        try:
            yield self._spill_count
        finally:
            self._reads_in_progress -= 1
            if not self._reads_in_progress:
                self._spilled_during_reads.clear()

    def _restore(self, job: Job, input_: bytes | None, count_before: int) -> None:
        """Restore a job from a row that was read after `count_before`, unless memory has a newer state."""
        if (
            job.number in self._registry.by_number
            or self._spilled_during_reads.get(job.number, 0) > count_before
        ):
            return
        phase = self._index.phase_of(job)
        if phase is None:
            return
        if phase == "behind":
            job.reason = None
            # Later only if the clock was ahead when it became ready.
            job.ready_at = min(job.ready_at, self._clock.now())
        live = LiveJob(job, None, phase)
        if input_ is not None and self.input_bytes < INPUTS_MAX_BYTES:
            self.keep_input(live, input_)
        self._registry.add(live, is_counted=True)
