from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runner.coordinator.lifecycle.deletion import JobDeletion
from runner.coordinator.storage.files import FileStore
from runner.errors import StoreUnavailable
from runner.jobs.job import Job
from runner.jobs.job_query import JobQuery
from runner.stores.sqlite.access import MemoryAccess
from runner.stores.store import WriteBatch
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, make_submission


class FullDisk(MemoryAccess):
    """A store that refuses writes while its disk is full, and counts the deletions of each commit."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = False
        self.deleted: list[int] = []

    async def commit(self, epoch: int, batch: WriteBatch) -> None:
        if self.is_full:
            raise StoreUnavailable("the disk is full")
        await super().commit(epoch, batch)
        if batch.deletes:
            self.deleted.append(len(batch.deletes))


class Scene:
    def __init__(self, harness: LifecycleHarness, access: FullDisk, files_dir: Path) -> None:
        self.harness, self.access, self.files = harness, access, FileStore(files_dir)
        self.deletion = JobDeletion(harness.lifecycle, self.files, harness.damaged_jobs, durable_wait_s=0.05)

    async def ended_jobs(self, count: int) -> list[Job]:
        """Cancelled jobs, each with a file."""
        jobs = []
        for number in range(1, count + 1):
            live = self.harness.lifecycle.submit(make_submission(number))
            self.harness.lifecycle.cancel_unstarted(live, "by hand")
            await self.files.save(live.job.id, 1, "a", [b"x"], "text/plain")
            jobs.append(live.job)
        await self.harness.journal.flush()
        return jobs

    async def stored(self) -> set[str]:
        return {job.id for job in await self.access.run_read(lambda store: store.find_jobs(JobQuery()))}


def play(files_dir: Path, body: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        access = FullDisk()
        harness = LifecycleHarness(access, await access.take_epoch())
        async with asyncio.timeout(10):
            await body(Scene(harness, access, files_dir))
        harness.timers.close()
        await harness.journal.close()

    asyncio.run(main())


def folders(files_dir: Path) -> set[str]:
    return {path.name for path in files_dir.iterdir()} - {"by-id"}


def test_many_jobs_are_deleted_by_one_commit(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        *jobs, kept = await scene.ended_jobs(5)
        await scene.deletion.delete_many(jobs)
        assert scene.access.deleted == [4] and await scene.stored() == {kept.id}
        assert folders(tmp_path) == {kept.id}
        assert not any(job.id in scene.deletion for job in jobs)

    play(tmp_path, body)


def test_one_job_is_deleted_with_its_files(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        gone, kept = await scene.ended_jobs(2)
        await scene.deletion.delete(gone)
        assert await scene.stored() == folders(tmp_path) == {kept.id}

    play(tmp_path, body)


def test_a_deletion_of_no_jobs_writes_nothing(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        await scene.ended_jobs(1)
        await scene.deletion.delete_many([])
        assert scene.access.deleted == []

    play(tmp_path, body)


def test_files_stay_until_the_deletion_is_durable(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        jobs = await scene.ended_jobs(3)
        scene.access.is_full = True
        with pytest.raises(StoreUnavailable):
            await scene.deletion.delete_many(jobs)
        assert all(job.id in scene.deletion for job in jobs)
        assert folders(tmp_path) == {job.id for job in jobs}
        scene.access.is_full = False
        while any(job.id in scene.deletion for job in jobs) or folders(tmp_path):
            await asyncio.sleep(0.01)
        assert await scene.stored() == set()

    play(tmp_path, body)
