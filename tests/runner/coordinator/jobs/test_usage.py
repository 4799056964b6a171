"""What attempts use of devices, and who it is put down to."""

from __future__ import annotations

import msgspec

from runner.coordinator.jobs.usage import UsageSum, UsageTotals
from runner.coordinator.jobs.usage_meter import UsageMeter
from runner.jobs.job import AttemptRecord, AttemptUsage, Job, JobTerms
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, make_submission, run

GIB = 1 << 30


def job(handler: str, tenant: str = "") -> Job:
    return Job(1, "job-1", handler, "default", 50, 0.0, JobTerms(tenant=tenant), 2)


def test_sums_are_by_tenant_handler_and_device_and_survive_a_restart() -> None:
    accounts = UsageTotals({}, 1_000.5)
    pair = AttemptRecord(1, "w", ["gpu0", "gpu1"], 0.0)
    kept = dict(accounts.add_attempt(job("paint", "acme"), pair, AttemptUsage(20.0, 40.0)))
    alone = AttemptRecord(1, "w", ["gpu1"], 0.0)
    kept |= accounts.add_attempt(job("paint"), alone, AttemptUsage(5.0, 5.0))
    for each in (accounts, UsageTotals({**kept, "queue/a/paused": b"true", "spent": b""}, 2_000.0)):
        assert each.since == 1_000.5
        assert each.tenants == {"acme": UsageSum(20.0, 40.0, 1), "": UsageSum(5.0, 5.0, 1)}
        assert each.handlers == {"paint": UsageSum(25.0, 45.0, 2)}
        assert each.devices == {"gpu0": UsageSum(10.0, 20.0, 1), "gpu1": UsageSum(15.0, 25.0, 2)}


def test_where_nothing_was_used_nothing_is_kept() -> None:
    assert UsageTotals({}, 5.0).since == 5.0


def test_an_attempt_is_charged_from_its_start_to_its_end() -> None:
    async def body(harness: LifecycleHarness) -> None:
        meter = UsageMeter()
        live = harness.lifecycle.submit(make_submission(retries=1, backoff=None))
        harness.start(live, loading=True, granted_bytes=2 * GIB, meter=meter)
        assert live.job.attempts[-1].spent == AttemptUsage() and live.job.spent is None
        harness.clock.at += 8.0
        harness.end(live, "handler_error", load_s=5.0, run_s=2.0)
        assert live.job.spent == AttemptUsage(8.0, 16.0 * GIB)
        harness.start(live, granted_bytes=2 * GIB, meter=meter)
        harness.clock.at += 3.0
        harness.end(live, run_s=2.0)
        assert live.job.attempts[-1].spent == AttemptUsage(2.0, 4.0 * GIB)
        assert live.job.spent == AttemptUsage(10.0, 20.0 * GIB)
        await harness.journal.flush()
        assert (await harness.read_stored("job-1")).spent == AttemptUsage(10.0, 20.0 * GIB)
        kept = await harness.access.run_read(lambda store: store.load_values("spent/"))
        assert set(kept) == {"spent/since", "spent/tenant/", "spent/handler/h", "spent/device/cpu"}

    run(body)


def test_an_attempt_that_occupies_no_device_costs_nothing() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission())
        harness.start(live)
        harness.clock.at += 8.0
        harness.end(live, run_s=8.0)
        assert live.job.spent is None and live.job.attempts[-1].spent is None
        assert harness.lifecycle.usage_totals.tenants == {}

    run(body)


def test_an_attempt_that_did_not_start_is_not_charged() -> None:
    async def body(harness: LifecycleHarness) -> None:
        meter = UsageMeter()
        live = harness.lifecycle.submit(make_submission())
        harness.start(live, granted_bytes=GIB, meter=meter)
        harness.clock.at += 8.0
        harness.lifecycle.return_unstarted(live)
        assert live.job.spent is None and live.meter_start is None
        harness.start(live, granted_bytes=GIB, meter=meter)
        harness.clock.at += 1.0
        harness.end(live)
        assert live.job.spent == AttemptUsage(1.0, GIB)

    run(body)


def test_what_a_workers_spool_tells_is_charged_by_its_own_times() -> None:
    async def body(harness: LifecycleHarness) -> None:
        live = harness.lifecycle.submit(make_submission())
        harness.start(live, granted_bytes=GIB, meter=UsageMeter())
        # As after a restart: the record was stored, the meter was not.
        live.stop_meter(harness.clock.at)
        harness.clock.at += 100.0
        harness.end(live, load_s=2.0, run_s=1.0)
        assert live.job.spent == AttemptUsage(3.0, 3.0 * GIB)

    run(body)


def test_damaged_totals_count_as_none() -> None:
    kept = {
        "spent/since": b"yesterday",
        "spent/tenant/a": b"\xc1",
        "spent/tenant/b": msgspec.msgpack.encode([1.0, 2.0, 3]),
    }
    totals = UsageTotals(kept, 5.0)
    assert totals.since == 5.0 and list(totals.tenants) == ["b"]
