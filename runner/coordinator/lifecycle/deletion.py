"""Effect: deletes ended jobs, and their files once the deletion is durable, however long the store takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.storage.files import FileStore
from runner.jobs.job import Job


class JobDeletion:
    """Deletions that are not durable yet, and files that are being removed."""

    def __init__(self, lifecycle: JobLifecycle, files: FileStore) -> None:
        """Create it without pending deletions."""
        self._lifecycle = lifecycle
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
            journal.delete(job)
        journal.call_when_durable(lambda _: self._on_durable(jobs), is_patient=True)
        await journal.flush()
        removals = [task for job in jobs if (task := self._file_removals.get(job.id)) is not None]
        for task in removals:
            await asyncio.shield(task)

    def _on_durable(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._pending_ids.discard(job.id)
            self._lifecycle.registry.uncount(job)
            task = asyncio.get_running_loop().create_task(self._files.remove_job(job.id))
            self._file_removals[job.id] = task
            task.add_done_callback(partial(self._on_files_removed, job.id))

    def _on_files_removed(self, job_id: str, _: asyncio.Task[None]) -> None:
        del self._file_removals[job_id]
