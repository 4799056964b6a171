"""Effect: the files of jobs in the data folder: saved, found by their id, and removed with their job."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator
from pathlib import Path

import msgspec

from runner.coordinator.jobs import job_json
from runner.errors import NotFound
from runner.jobs import job_files
from runner.jobs.ids import new_id
from runner.jobs.job import FileRecord, Job

log = logging.getLogger(__name__)

_json = msgspec.json.Encoder().encode
#: Folders of files that are looked up in the store at a time.
ORPHANS_PER_READ = 200
#: This file in the index says that all files are in it. Folders that older versions filled have none.
INDEX_COMPLETE_NAME = ".complete"


class FileStore:
    """The folder `DATA/files`, described in `runner.jobs.job_files`. Blocking calls run in threads."""

    def __init__(self, files_dir: Path) -> None:
        """Use this folder; it must exist when the first method is called."""
        self._files_dir = files_dir
        self._index_complete_path = files_dir / job_files.INDEX_NAME / INDEX_COMPLETE_NAME
        self._is_index_complete = False

    async def save(
        self, job_id: str, attempt: int, name: str, chunks: Iterable[bytes], content_type: str
    ) -> FileRecord:
        """Save a file of an attempt durably under a new id; `chunks` is consumed in a thread.

        Raises:
            OSError: the disk refused the write.
        """
        file_id = new_id()
        size, sha256 = await asyncio.to_thread(
            job_files.write_file, self._files_dir, job_id, attempt, file_id, chunks
        )
        return FileRecord(file_id, name, size, sha256, content_type, attempt)

    async def find(self, file_id: str) -> Path | None:
        """Return the path of the file with this id, or None.

        One link is read, however many files there are; only until `build_index` is through are all folders
        searched for an id that is not in the index.

        Raises:
            OSError: the folder can't be read.
        """
        return await asyncio.to_thread(self._find, file_id)

    def path(self, job_id: str, record: FileRecord) -> Path:
        """Return the path of a job's file."""
        return job_files.file_path(self._files_dir, job_id, record.attempt, record.id)

    def file_json(self, job: Job, name: str) -> bytes:
        """Return the path of a job's latest file of this name, and its reference, as JSON text.

        Raises:
            NotFound: the job has no such file.
        """
        for record in reversed(job.files):
            if record.name == name:
                path = self.path(job.id, record)
                return _json({"path": str(path), "file": job_json.file_document(job.id, record)})
        names = ", ".join(record.name for record in job.files) or "none"
        raise NotFound(f"job {job.id} has no file {name!r}; its files: {names}")

    async def remove_job(self, job_id: str) -> None:
        """Remove all files of a deleted job."""
        await asyncio.to_thread(self._remove_job, job_id)

    async def remove_orphans(
        self, live_ids: Container[str], find_existing: Callable[[list[str]], Awaitable[set[str]]]
    ) -> None:
        """Remove files of deleted jobs: the last server may have ended between a deletion's commit and these.

        `live_ids` are the jobs in memory; `find_existing` returns those of the given ids that are stored.
        """
        names = await asyncio.to_thread(self._job_ids)
        orphaned: list[str] = []
        for start in range(0, len(names), ORPHANS_PER_READ):
            # In this order: a job is in memory until its end is in the store.
            candidates = [name for name in names[start : start + ORPHANS_PER_READ] if name not in live_ids]
            found = await find_existing(candidates) if candidates else set()
            orphaned += set(candidates) - found
        for name in orphaned:
            await self.remove_job(name)
        if orphaned:
            log.info(
                "the files of %d deleted jobs were left by the last start, and are removed", len(orphaned)
            )

    async def build_index(self) -> None:
        """Add the files of older versions, which kept no index, to it. Once for each data folder.

        Raises:
            OSError: the folder can't be read or written.
        """
        await asyncio.to_thread(self._build_index)
        self._is_index_complete = True

    def _find(self, file_id: str) -> Path | None:
        path = job_files.find_path(self._files_dir, file_id)
        if path is None and not self._is_index_complete:
            path = next((found for found in self._files() if found.name == file_id), None)
        return path

    def _build_index(self) -> None:
        if self._index_complete_path.exists():
            return
        changed: set[Path] = set()
        for path in self._files():
            job_id, attempt, file_id = path.parts[-3:]
            if attempt.isdecimal():
                changed.add(job_files.add_to_index(self._files_dir, job_id, int(attempt), file_id))
        for folder in changed:
            job_files.sync_folder(folder)
        self._index_complete_path.parent.mkdir(exist_ok=True)
        self._index_complete_path.touch()
        job_files.sync_folder(self._index_complete_path.parent)

    def _job_ids(self) -> list[str]:
        return [name for name in os.listdir(self._files_dir) if name != job_files.INDEX_NAME]

    def _files(self) -> Iterator[Path]:
        return itertools.chain.from_iterable(map(self._files_of, self._job_ids()))

    def _files_of(self, job_id: str) -> Iterator[Path]:
        # Not a glob: that raises where a folder is removed during it.
        for folder, _, names in os.walk(self._files_dir / job_id):
            if Path(folder).parent.parent == self._files_dir:
                yield from (Path(folder, name) for name in names if job_files.is_file_id(name))

    def _remove_job(self, job_id: str) -> None:
        # The index first: without the files nothing says which entries to remove.
        for path in self._files_of(job_id):
            job_files.remove_from_index(self._files_dir, path.name)
        shutil.rmtree(self._files_dir / job_id, ignore_errors=True)
