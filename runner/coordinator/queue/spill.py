"""Effect: jobs that wait in the store alone: memory lets go of them and takes them in again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from runner.coordinator.jobs.job_registry import JobRegistry, LiveJob
from runner.coordinator.queue.queued_index import QueuedIndex
from runner.coordinator.storage.journal import Journal
from runner.errors import RunnerError, StoreUnavailable
from runner.jobs.job import Job

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Inputs of waiting jobs stay in memory up to this sum; beyond it they are read when needed.
INPUTS_MAX_BYTES = 64 * 1024 * 1024
#: A read that failed is tried again after so long.
READ_RETRY_S = 1.0
#: So often a job that changes while its row is read is looked for.
LOAD_TRIES = 10

#: Reads rows by their numbers; inputs that are small come with them.
RowReader = Callable[[Sequence[int]], Awaitable[list[tuple[Job, bytes | None]]]]
#: Reads a row by its id.
JobFinder = Callable[[str], Awaitable[Job | None]]


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """How much of what waits is in memory."""

    #: Live jobs up to this number stay wherever they wait; a quiet house never lets go of one.
    kept_jobs_max: int = 20_000  # guard: spill-kept
    #: So many jobs of a class are in the plan's view; those behind follow when half of them are gone.
    window_jobs: int = 2_000  # guard: spill-window
    #: With so many live jobs classes get the small window.
    large_backlog_jobs: int = 50_000  # guard: spill-live
    small_window_jobs: int = 32  # guard: spill-small-window
    #: Rows read in one go.
    rows_per_read: int = 1_000  # guard: spill-read-rows
    #: What is due at one moment goes in portions of so many, a portion a turn of the loop.
    due_per_turn: int = 1_000  # guard: spill-due


async def read_with_retry(
    read: Callable[[Sequence[int]], Awaitable[Result]], numbers: Sequence[int], what: str
) -> Result:
    """What `read` finds of these job numbers; a read that fails is tried again until one does not."""
    while True:
        try:
            return await read(numbers)
        except Exception:
            # Given up, these would wait or hold an executor for ever; the store may be better in a moment.
            log.exception("%s could not be read (%d of them); it is tried again", what, len(numbers))
        await asyncio.sleep(READ_RETRY_S)


class SpillPool:
    """What memory holds of jobs that wait: themselves up to a number, their inputs up to a sum."""

    def __init__(
        self,
        *,
        registry: JobRegistry,
        index: QueuedIndex,
        journal: Journal,
        read_rows: RowReader,
        find_job: JobFinder,
        bounds: QueueBounds,
    ) -> None:
        self._registry = registry
        self._index = index
        self._journal = journal
        self._read_rows = read_rows
        self._find_job = find_job
        self._bounds = bounds
        #: Bytes of the inputs that are in memory.
        self.input_bytes = 0
        #: Reads under way.
        self._reads_in_progress = 0
        #: Counts who was let go of.
        self._spill_count = 0
        #: Who was let go of while reads were under way, with the count: an older row must not be believed.
        self._spilled_during_reads: dict[int, int] = {}

    def maybe_spill(self, live: LiveJob) -> None:
        """The job waits behind others or for its time: where memory holds enough, let go of it as soon
        as it is durable."""
        if len(self._registry) > self._bounds.kept_jobs_max:
            self._journal.call_when_durable(lambda _: self._spill(live), is_urgent=False, is_patient=True)

    async def load(self, numbers: Sequence[int]) -> None:
        """Take these in again, as far as they still wait behind others or for their time."""
        with self._track_read() as count_before:
            rows = await read_with_retry(self._read_rows, numbers, "jobs that wait")
            for job, input_ in rows:
                self._restore(job, input_, count_before)
            found = {job.number for job, _ in rows}
            for number in numbers:
                if (
                    number not in found
                    and number not in self._registry.by_number
                    and self._spilled_during_reads.get(number, 0) <= count_before
                ):
                    log.error("job number %d waits, but the store does not hold it", number)
                    self._index.discard_number(number)

    async def load_job(self, job_id: str) -> LiveJob | None:
        """The job as a live one; None where it has ended, or there is none.

        Raises:
            StoreUnavailable: its row can't be read.
        """
        for _ in range(LOAD_TRIES):
            live = self._registry.by_id.get(job_id)
            if live is not None:
                return live
            with self._track_read() as count_before:
                job = await self._find_job(job_id)
                if job is not None and job.state in ("queued", "running"):
                    self._restore(job, None, count_before)
            if job is None or job.state not in ("queued", "running"):
                return self._registry.by_id.get(job_id)
        raise RunnerError(f"job {job_id} is neither in memory nor where the store says that it waits")

    def keep_input(self, live: LiveJob, text: bytes) -> None:
        """An input was read from the store; it stays in memory from now on."""
        if live.input is None:
            live.input = text
            # Who was let go of while it was read is not in memory for long.
            self.input_bytes += live.job.input_bytes if live.phase != "spilled" else 0

    def drop_input(self, live: LiveJob, failure: StoreUnavailable | None = None) -> None:
        """The input of a waiting job is durable, or not wanted any more: it leaves memory."""
        if failure is None and live.phase in ("waiting", "delayed", "behind") and live.input is not None:
            live.input = None
            self.input_bytes -= live.job.input_bytes

    def _spill(self, live: LiveJob) -> None:
        if live.phase not in ("behind", "delayed") or live.end_callbacks or live.has_unused_attempt:
            return
        # It has changed since: its row is not up to date yet.
        if not self._journal.is_written(live.job):
            return
        if live.input is not None:
            # The input itself stays with the object: whoever submitted it is about to be answered.
            self.input_bytes -= live.job.input_bytes
        live.phase = "spilled"
        self._registry.remove(live)
        self._spill_count += 1
        if self._reads_in_progress:
            self._spilled_during_reads[live.job.number] = self._spill_count

    @contextmanager
    def _track_read(self) -> Iterator[int]:
        """Rows are read and taken in; gives the count before, which tells who was let go of meanwhile."""
        self._reads_in_progress += 1
        try:
            yield self._spill_count
        finally:
            self._reads_in_progress -= 1
            if not self._reads_in_progress:
                self._spilled_during_reads.clear()

    def _restore(self, job: Job, input_: bytes | None, count_before: int) -> None:
        """Believe a row that was read since `began`, unless memory knows better."""
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
        live = LiveJob(job, None, phase)
        if input_ is not None and self.input_bytes < INPUTS_MAX_BYTES:
            self.keep_input(live, input_)
        self._registry.add(live, is_counted=True)
