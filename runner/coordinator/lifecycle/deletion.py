"""Effect: removes ended jobs, and their files when that is durable, however long the store takes."""

from __future__ import annotations

import asyncio

from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.jobs.job import Job


class Removals:
    """Jobs that are gone as soon as the store takes writes again, and files that are being removed."""

    def __init__(self, line: JobLifecycle, archive: JobReader) -> None:
        self._line = line
        self._archive = archive
        self._jobs: set[str] = set()
        self._files: dict[str, asyncio.Task[None]] = {}

    def __contains__(self, job_id: str) -> bool:
        """Whether its removal is asked for and not durable yet."""
        return job_id in self._jobs

    async def remove(self, job: Job) -> None:
        """Back when nothing is left of it.

        Raises:
            StoreUnavailable: it goes when the store takes writes again.
        """
        self._jobs.add(job.id)
        self._line.journal.delete(job)
        self._line.journal.call_when_durable(lambda _: self._durable(job), is_patient=True)
        await self._line.journal.flush()
        files = self._files.get(job.id)
        if files is not None:
            await asyncio.shield(files)

    def _durable(self, job: Job) -> None:
        self._jobs.discard(job.id)
        self._line.registry.uncount(job)
        task = asyncio.get_running_loop().create_task(self._archive.remove_files(job.id))
        self._files[job.id] = task
        task.add_done_callback(lambda _: self._files.pop(job.id, None))
