"""Jobs whose rows can't be read leave the queue and the counts, and stop nothing else."""

from __future__ import annotations

import pytest

from runner.errors import JobDamaged
from runner.jobs.job import Job, JobTerms
from runner.jobs.job_query import JobQuery
from runner.stores.damaged_row import DamagedRow
from runner.stores.queued_groups import GroupKey, StoredGroup
from runner.stores.store import WriteBatch
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, make_submission, run


def make_job(number: int) -> Job:
    return Job(number, f"job-{number}", "h", "default", 50, 900.0, JobTerms(), 2, ready_at=900.0)


async def store_queued(harness: LifecycleHarness, *numbers: int, priority: int = 50) -> None:
    """Jobs that are queued in the store; the index holds them under this priority."""
    jobs = [make_job(number) for number in numbers]
    await harness.access.commit(1, WriteBatch(inserts=[(job, b"{}") for job in jobs]))
    group = StoredGroup(GroupKey("default", "h", priority, None))
    group.ready.extend(numbers)
    harness.queue_manager.load_stored([group])
    registry = harness.lifecycle.registry
    registry.counts["default", "queued"] += len(jobs)
    registry.queued_count += len(jobs)


def waiting(harness: LifecycleHarness) -> int:
    return sum(count for _, _, count, _ in harness.queue_manager.counts_by_reason())


def test_a_damaged_job_leaves_the_queue_and_the_counts() -> None:
    async def body(harness: LifecycleHarness) -> None:
        await store_queued(harness, 1, 2)
        row = DamagedRow(1, "job-1", "column body can't be decoded", "default", "queued")
        harness.damaged_jobs.set_aside([row])
        harness.damaged_jobs.set_aside([row])
        await harness.journal.flush()
        registry = harness.lifecycle.registry
        assert (harness.damaged_jobs.count, registry.queued_count, waiting(harness)) == (1, 1, 1)
        assert registry.counts["default", "queued"] == 1
        with pytest.raises(JobDamaged, match="column body"):
            await harness.job_reader.require_job("job-1")
        assert await harness.job_reader.existing_ids(["job-1", "job-2", "job-3"]) == {"job-1", "job-2"}

    run(body)


def test_a_damaged_row_of_a_job_in_memory_is_written_again() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission())
        await harness.journal.flush()
        row = DamagedRow(live.job.number, live.job.id, "damage", "default", "queued")
        harness.damaged_jobs.set_aside([row])
        assert not harness.journal.is_written(live.job) and harness.damaged_jobs.count == 0
        await harness.journal.flush()
        assert (await harness.read_stored(live.job.id)).state == "queued"

    run(body)


def test_a_row_in_another_group_than_its_columns_say_holds_up_no_job() -> None:
    async def body(harness: LifecycleHarness) -> None:
        await store_queued(harness, 1, priority=51)
        await harness.queue_manager.spill_pool.load([1])
        await harness.journal.flush()
        assert (harness.damaged_jobs.count, waiting(harness)) == (1, 0)
        found = await harness.access.run_read(lambda store: store.find_jobs(JobQuery()))
        assert found == []

    run(body)


def test_a_contradictory_row_is_refused_to_who_asks_for_it() -> None:
    async def body(harness: LifecycleHarness) -> None:
        await store_queued(harness, 1, priority=51)
        with pytest.raises(JobDamaged):
            await harness.queue_manager.spill_pool.load_job("job-1")
        assert harness.damaged_jobs.count == 1

    run(body)
