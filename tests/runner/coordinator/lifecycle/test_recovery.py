"""What the last coordinator left is made good."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.jobs.queued_names import NameLimits
from runner.coordinator.lifecycle import recovery
from runner.errors import TooManyNames
from runner.jobs.job import AttemptRecord, Job, JobTerms
from runner.protocol.spool import Spool
from runner.protocol.worker import PROTOCOL, AttemptEnded, AttemptEvents, AttemptStarted, Hello, encode
from runner.stores.memory import MemoryStore
from runner.stores.store import WriteBatch
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, make_submission, run


def stored(**changes: object) -> Job:
    job = Job(1, "job-1", "h", "default", 50, 900.0, JobTerms(), 2, ready_at=900.0)
    return msgspec.structs.replace(job, **changes)


def spool(*messages: msgspec.Struct) -> Spool:
    hello = Hello(PROTOCOL, "", "node", "worker", "old-worker", 1, 1)
    return Spool(Path("x.spool"), hello, [encode(message) for message in messages])


def recover(harness: LifecycleHarness, job: Job, *messages: msgspec.Struct) -> LiveJob:
    take_over(harness, job, *messages)
    (live,) = harness.lifecycle.registry
    return live


def take_over(harness: LifecycleHarness, job: Job, *messages: msgspec.Struct) -> None:
    harness.lifecycle.registry.counts[job.queue, job.state] += 1
    store = MemoryStore()
    store.commit(store.take_epoch(), WriteBatch(inserts=[(job, b"{}")]))
    spools = [spool(*messages)] if messages else []
    left = recovery.RecoveredState.load(store, recovery.job_ids_in(spools), harness.clock.now())
    recovery.recover(harness.lifecycle, harness.queue_manager, left, spools)


def test_an_attempt_that_was_cut_off_goes_again_without_using_up_a_retry() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = recover(harness, stored(state="running", attempt=1))
        assert (live.job.state, live.job.attempt, live.job.failures) == ("queued", 1, 0)
        assert live.phase == "waiting"

    run(body)


def test_the_names_of_stored_jobs_count() -> None:
    async def body(harness: LifecycleHarness) -> None:
        harness.lifecycle.registry.names.limits = NameLimits(tenants=1, models=1)
        take_over(harness, stored(terms=JobTerms(tenant="a", model="m")))
        for more in ({"tenant": "b"}, {"model": "n"}):
            with pytest.raises(TooManyNames):
                harness.lifecycle.submit(make_submission(2, **more))
        harness.lifecycle.submit(make_submission(2, tenant="a", model="m"))

    run(body)


def test_a_result_in_the_spool_counts() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = recover(
            harness, stored(state="running", attempt=1), AttemptEnded("job-1", 1, 1, None, output=b"7")
        )
        await harness.journal.flush()
        assert (live.job.state, live.output) == ("succeeded", b"7")

    run(body)


def test_a_result_of_a_first_attempt_whose_start_was_not_written_counts() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = recover(harness, stored(), AttemptEnded("job-1", 1, 1, None, output=b"7", started_at=950.0))
        assert (live.job.state, live.job.attempt, live.job.started_at) == ("succeeded", 1, 950.0)

    run(body)


def test_an_interrupted_first_attempt_keeps_its_number() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = recover(harness, stored(), AttemptEnded("job-1", 1, 1, "interrupted", "cut", started_at=950.0))
        assert (live.job.state, live.job.attempt, live.job.failures) == ("queued", 1, 0)

    run(body)


def test_an_attempt_that_ran_out_of_memory_meanwhile_goes_up_the_ladder() -> None:
    async def body(harness: LifecycleHarness) -> None:
        end = AttemptEnded("job-1", 1, 1, "device_out_of_memory", "why")
        record = AttemptRecord(1, "w", ["sim0"], 950.0, granted_bytes=4096)
        live = recover(harness, stored(state="running", attempt=1, attempts=[record]), end)
        assert (live.job.state, live.job.rung, live.job.ran_out) == ("queued", 1, (4096,))

    run(body)


@pytest.mark.parametrize("cpu", ["cpu", "rack-7.cpu"])
def test_on_the_cpu_there_is_no_such_ladder(cpu: str) -> None:
    async def body(harness: LifecycleHarness) -> None:
        end = AttemptEnded("job-1", 1, 1, "device_out_of_memory", "why")
        record = AttemptRecord(1, "w", [cpu], 950.0, granted_bytes=4096)
        live = recover(harness, stored(state="running", attempt=1, attempts=[record]), end)
        assert live.job.state == "failed"

    run(body)


def test_what_was_applied_before_is_not_applied_again() -> None:
    async def body(harness: LifecycleHarness) -> None:
        note = AttemptEvents("job-1", 1, 2, [("output", 0.0, b'{"chunk":1}')])
        live = recover(harness, stored(state="running", attempt=1, applied_seq=2), note)
        await harness.journal.flush()
        assert [kind for _, kinds in harness.published for kind in kinds] == ["status"]
        assert live.job.state == "queued"

    run(body)


def test_a_job_of_which_only_old_news_were_kept_waits_on() -> None:
    """Its end was written down and it was put back; the worker had not been told so."""

    async def body(harness: LifecycleHarness) -> None:
        ended = AttemptEnded("job-1", 1, 2, "interrupted", "cut", started_at=950.0)
        live = recover(harness, stored(state="queued", attempt=1, applied_seq=2), ended)
        assert (live.job.state, live.phase, live.attempt_in_flight) == ("queued", "waiting", 0)

    run(body)


def test_late_news_of_an_old_attempt_is_counted_and_dropped() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = recover(
            harness, stored(attempt=2, state="running"), AttemptEnded("job-1", 1, 9, None, output=b"7")
        )
        assert (live.job.state, harness.lifecycle.statistics.stale_count) == ("queued", 1)

    run(body)


def test_news_of_unknown_jobs_and_of_executors_are_passed_over() -> None:
    async def body(harness: LifecycleHarness) -> None:
        job = stored()
        take_over(harness, job, AttemptEnded("other", 1, 1, None), AttemptStarted("job-1", 1, 950.0))
        assert (len(harness.lifecycle.registry), harness.queue_manager.stored_phase(job)) == (0, "behind")

    run(body)


def test_a_cancel_that_was_under_way_is_kept() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = recover(harness, stored(state="running", attempt=1, cancel_reason="by hand"))
        assert live.job.state == "cancelled"

    run(body)


DAY_S = 86_400.0


def test_a_job_accepted_while_the_clock_was_ahead_is_ready() -> None:
    async def body(harness: LifecycleHarness) -> None:
        ahead = harness.clock.now() + DAY_S
        take_over(harness, stored(created_at=ahead, ready_at=ahead))
        assert [reason for _, reason, *_ in harness.queue_manager.counts_by_reason()] == ["ready"]

    run(body)


def test_an_attempt_started_while_the_clock_was_ahead_goes_again_at_once() -> None:
    async def body(harness: LifecycleHarness) -> None:
        ahead = harness.clock.now() + 20 * 365 * DAY_S
        live = recover(
            harness, stored(created_at=ahead, ready_at=ahead, started_at=ahead, state="running", attempt=1)
        )
        assert (live.phase, live.job.state, live.job.ready_at) == ("waiting", "queued", harness.clock.now())
        assert harness.queue_manager.reasons.for_live_job(live) == "ready"

    run(body)


def test_a_start_time_that_was_asked_for_stays() -> None:
    async def body(harness: LifecycleHarness) -> None:
        later = harness.clock.now() + DAY_S
        take_over(harness, stored(ready_at=later, reason="scheduled"))
        assert [reason for _, reason, *_ in harness.queue_manager.counts_by_reason()] == ["scheduled"]

    run(body)
