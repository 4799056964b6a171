"""Effect: deletes ended jobs, and their files once the deletion is durable, however long the store takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from runner.coordinator.lifecycle.damaged_jobs import DamagedJobs
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.storage.files import FileStore
from runner.errors import StoreUnavailable
from runner.jobs.ids import is_id
from runner.jobs.job import Job
from runner.stores.damaged_row import DamagedRow

#: Longest wait for a deletion to be durable, so that its client gets an answer within 2 s.
DURABLE_WAIT_S = 1.5


class JobDeletion:
    """Deletions that are not durable yet, and files that are being removed."""

    def __init__(
        self,
        lifecycle: JobLifecycle,
        files: FileStore,
        damaged_jobs: DamagedJobs,
        *,
        durable_wait_s: float = DURABLE_WAIT_S,
    ) -> None:
        """Create it without pending deletions."""
        self._durable_wait_s = durable_wait_s
        self._lifecycle = lifecycle
        self._damaged_jobs = damaged_jobs
        self._files = files
        self._pending_ids: set[str] = set()
        self._file_removals: dict[str, asyncio.Task[None]] = {}

    def __contains__(self, job_id: str) -> bool:
        """Return whether the deletion of the job is requested and not durable yet."""
        return job_id in self._pending_ids

    async def delete(self, job: Job) -> None:
        """Delete an ended job; return when its rows and files are removed.

        Raises:
            StoreUnavailable: the job is deleted once the store accepts writes again.
        """
        await self.delete_many([job])

    async def delete_many(self, jobs: Sequence[Job]) -> None:
        """Delete ended jobs, all in one commit; return when their rows and files are removed.

        Raises:
            StoreUnavailable: the jobs are deleted once the store accepts writes again.
        """
        if not jobs:
            return
        journal = self._lifecycle.journal
        for job in jobs:
            self._pending_ids.add(job.id)
            journal.delete(job.number)
        journal.call_when_durable(lambda _: self._on_durable(jobs), is_patient=True)
        await self._wait_until_durable()
        removals = [task for job in jobs if (task := self._file_removals.get(job.id)) is not None]
        for task in removals:
            await asyncio.shield(task)

    async def delete_damaged(self, row: DamagedRow) -> None:
        """Delete a job that can't be read; return when its rows and files are removed.

        Raises:
            StoreUnavailable: the job is deleted once the store accepts writes again.
        """
        journal = self._lifecycle.journal
        self._pending_ids.add(row.id)
        journal.delete(row.number)
        journal.call_when_durable(lambda _: self._on_damaged_durable(row), is_patient=True)
        await self._wait_until_durable()
        removal = self._file_removals.get(row.id)
        if removal is not None:
            await asyncio.shield(removal)

    async def _wait_until_durable(self) -> None:
        """Wait for the deletions made until now, also while the store refuses writes: it may take these.

        Raises:
            StoreUnavailable: it does not, or not in time.
        """
        journal = self._lifecycle.journal
        done = asyncio.Event()
        journal.call_when_durable(lambda _: done.set(), is_patient=True)
        try:
            await asyncio.wait_for(done.wait(), self._durable_wait_s)
        except TimeoutError as timeout:
            why = "the store takes too long to write"
            raise journal.failure or StoreUnavailable(why) from timeout

    def _on_damaged_durable(self, row: DamagedRow) -> None:
        self._pending_ids.discard(row.id)
        self._damaged_jobs.on_deleted(row)
        # The id of a damaged row may be any text; the next start removes the files of one that is none.
        if is_id(row.id):
            self._remove_files(row.id)

    def _remove_files(self, job_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._files.remove_job(job_id))
        self._file_removals[job_id] = task
        task.add_done_callback(partial(self._on_files_removed, job_id))

    def _on_durable(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._pending_ids.discard(job.id)
            self._lifecycle.registry.uncount(job)
            self._remove_files(job.id)

    def _on_files_removed(self, job_id: str, _: asyncio.Task[None]) -> None:
        del self._file_removals[job_id]
