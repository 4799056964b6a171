"""Effect: deletes ended jobs, and their files once the deletion is durable, however long the store takes."""

from __future__ import annotations

import asyncio

from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.storage.files import FileStore
from runner.jobs.job import Job


class JobDeletion:
    """Deletions that are not durable yet, and files that are being removed."""

    def __init__(self, lifecycle: JobLifecycle, files: FileStore) -> None:
        self._lifecycle = lifecycle
        self._files = files
        self._pending_ids: set[str] = set()
        self._file_removals: dict[str, asyncio.Task[None]] = {}

    def __contains__(self, job_id: str) -> bool:
        """Whether the deletion of the job is requested and not durable yet."""
        return job_id in self._pending_ids

    async def delete(self, job: Job) -> None:
        """Delete a job; returns when its rows and files are removed.

        Raises:
            StoreUnavailable: the job is deleted once the store accepts writes again.
        """
        self._pending_ids.add(job.id)
        self._lifecycle.journal.delete(job)
        self._lifecycle.journal.call_when_durable(lambda _: self._on_durable(job), is_patient=True)
        await self._lifecycle.journal.flush()
        files = self._file_removals.get(job.id)
        if files is not None:
            await asyncio.shield(files)

    def _on_durable(self, job: Job) -> None:
        self._pending_ids.discard(job.id)
        self._lifecycle.registry.uncount(job)
        task = asyncio.get_running_loop().create_task(self._files.remove_job(job.id))
        self._file_removals[job.id] = task
        task.add_done_callback(lambda _: self._file_removals.pop(job.id, None))
