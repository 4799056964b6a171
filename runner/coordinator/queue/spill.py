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

Found = TypeVar("Found")

#: Inputs of waiting jobs stay in memory up to this sum; beyond it they are read when needed.
INPUTS_MAX_BYTES = 64 * 1024 * 1024
#: A read that failed is tried again after so long.
FAILED_S = 1.0
#: So often a job that changes while its row is read is looked for.
TRIES = 10

#: Reads rows by their numbers; inputs that are small come with them.
Rows = Callable[[Sequence[int]], Awaitable[list[tuple[Job, bytes | None]]]]
#: Reads a row by its id.
Find = Callable[[str], Awaitable[Job | None]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of what waits is in memory."""

    #: Live jobs up to this number stay wherever they wait; a quiet house never lets go of one.
    kept: int = 20_000  # guard: spill-kept
    #: So many jobs of a class are in the plan's view; those behind follow when half of them are gone.
    window: int = 2_000  # guard: spill-window
    #: With so many live jobs classes get the small window.
    live: int = 50_000  # guard: spill-live
    small_window: int = 32  # guard: spill-small-window
    #: Rows read in one go.
    read_rows: int = 1_000  # guard: spill-read-rows
    #: What is due at one moment goes in portions of so many, a portion a turn of the loop.
    due: int = 1_000  # guard: spill-due


async def patiently(read: Callable[[Sequence[int]], Awaitable[Found]], ns: Sequence[int], what: str) -> Found:
    """What `read` finds of these job numbers; a read that fails is tried again until one does not."""
    while True:
        try:
            return await read(ns)
        except Exception:
            # Given up, these would wait or hold an executor for ever; the store may be better in a moment.
            log.exception("%s could not be read (%d of them); it is tried again", what, len(ns))
        await asyncio.sleep(FAILED_S)


class Sleep:
    """What memory holds of jobs that wait: themselves up to a number, their inputs up to a sum."""

    def __init__(
        self,
        *,
        book: JobRegistry,
        lots: QueuedIndex,
        journal: Journal,
        rows: Rows,
        find: Find,
        bounds: Bounds,
    ) -> None:
        self._book = book
        self._lots = lots
        self._journal = journal
        self._rows = rows
        self._find = find
        self._bounds = bounds
        #: Bytes of the inputs that are in memory.
        self.input_bytes = 0
        #: Reads under way.
        self._reads = 0
        #: Counts who was let go of.
        self._count = 0
        #: Who was let go of while reads were under way, with the count: an older row must not be believed.
        self._gone: dict[int, int] = {}

    def rest(self, live: LiveJob) -> None:
        """The job waits behind others or for its time: where memory holds enough, let go of it as soon
        as it is durable."""
        if len(self._book) > self._bounds.kept:
            self._journal.call_when_durable(lambda _: self._let_go(live), is_urgent=False, is_patient=True)

    async def bring(self, ns: Sequence[int]) -> None:
        """Take these in again, as far as they still wait behind others or for their time."""
        with self._reading() as began:
            rows = await patiently(self._rows, ns, "jobs that wait")
            for job, input_ in rows:
                self._take_in(job, input_, began)
            found = {job.number for job, _ in rows}
            for n in ns:
                if n not in found and n not in self._book.by_number and self._gone.get(n, 0) <= began:
                    log.error("job number %d waits, but the store does not hold it", n)
                    self._lots.discard_number(n)

    async def rouse(self, job_id: str) -> LiveJob | None:
        """The job as a live one; None where it has ended, or there is none.

        Raises:
            StoreUnavailable: its row can't be read.
        """
        for _ in range(TRIES):
            live = self._book.by_id.get(job_id)
            if live is not None:
                return live
            with self._reading() as began:
                job = await self._find(job_id)
                if job is not None and job.state in ("queued", "running"):
                    self._take_in(job, None, began)
            if job is None or job.state not in ("queued", "running"):
                return self._book.by_id.get(job_id)
        raise RunnerError(f"job {job_id} is neither in memory nor where the store says that it waits")

    def keep_input(self, live: LiveJob, text: bytes) -> None:
        """An input was read from the store; it stays in memory from now on."""
        if live.input is None:
            live.input = text
            # Who was let go of while it was read is not in memory for long.
            self.input_bytes += live.job.input_bytes if live.phase != "asleep" else 0

    def drop_input(self, live: LiveJob, failure: StoreUnavailable | None = None) -> None:
        """The input of a waiting job is durable, or not wanted any more: it leaves memory."""
        if failure is None and live.phase in ("waiting", "delayed", "behind") and live.input is not None:
            live.input = None
            self.input_bytes -= live.job.input_bytes

    def _let_go(self, live: LiveJob) -> None:
        if live.phase not in ("behind", "delayed") or live.end_callbacks or live.has_unused_attempt:
            return
        # It has changed since: its row is not up to date yet.
        if not self._journal.is_written(live.job):
            return
        if live.input is not None:
            # The input itself stays with the object: whoever submitted it is about to be answered.
            self.input_bytes -= live.job.input_bytes
        live.phase = "asleep"
        self._book.remove(live)
        self._count += 1
        if self._reads:
            self._gone[live.job.number] = self._count

    @contextmanager
    def _reading(self) -> Iterator[int]:
        """Rows are read and taken in; gives the count before, which tells who was let go of meanwhile."""
        self._reads += 1
        try:
            yield self._count
        finally:
            self._reads -= 1
            if not self._reads:
                self._gone.clear()

    def _take_in(self, job: Job, input_: bytes | None, began: int) -> None:
        """Believe a row that was read since `began`, unless memory knows better."""
        if job.number in self._book.by_number or self._gone.get(job.number, 0) > began:
            return
        where = self._lots.phase_of(job)
        if where is None:
            return
        if where == "behind":
            job.reason = None
        live = LiveJob(job, None, where)
        if input_ is not None and self.input_bytes < INPUTS_MAX_BYTES:
            self.keep_input(live, input_)
        self._book.add(live, is_counted=True)
