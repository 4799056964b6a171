"""What is told of a job's events is true of one moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runner.coordinator.front.event_reader import read_event_page
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.protocol import front as front_protocol
from runner.stores.sqlite.access import MemoryAccess
from runner.stores.store import Store
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, make_submission, run

T = TypeVar("T")


class Between(MemoryAccess):
    """Something happens between a read and the arrival of what was read."""

    then: Callable[[], Awaitable[None]] | None = None

    async def run_read(self, read: Callable[[Store], T]) -> T:
        found = await super().run_read(read)
        then, self.then = self.then, None
        if then is not None:
            await then()
        return found


def test_events_that_become_durable_while_a_page_is_read_are_not_told_as_gone() -> None:
    async def main() -> None:
        access = Between()
        harness = LifecycleHarness(access, await access.take_epoch())
        archive = JobReader(access, harness.journal)
        live = harness.lifecycle.submit(make_submission())
        await harness.journal.flush()

        async def it_ends() -> None:
            harness.lifecycle.cancel_unstarted(live, "by hand")
            await harness.journal.flush()

        access.then = it_ends
        told = await read_event_page(
            harness.lifecycle,
            harness.queue_manager,
            archive,
            harness.wait_statuses,
            front_protocol.ReadEvents(1, "job-1", 1, 1000),
        )
        assert ([seq for seq, _, _ in told.events], told.last_seq, told.is_job_ended) == ([2], 2, True)
        harness.timers.close()

    asyncio.run(main())


def test_a_page_without_bytes_shows_the_job_and_reads_no_event() -> None:
    async def body(harness: LifecycleHarness) -> None:
        harness.lifecycle.submit(make_submission())
        await harness.journal.flush()
        reader = JobReader(harness.access, harness.journal)
        for max_bytes, count in ((0, 0), (1, 1)):
            page = await read_event_page(
                harness.lifecycle,
                harness.queue_manager,
                reader,
                harness.wait_statuses,
                front_protocol.ReadEvents(1, "job-1", 0, max_bytes),
            )
            assert (len(page.events), page.last_seq, page.is_job_ended) == (count, 1, False)
            assert b'"job-1"' in page.job


def test_a_page_of_a_queued_job_says_how_it_waits_after_its_last_event() -> None:
    async def body(harness: LifecycleHarness) -> None:
        async def read() -> front_protocol.EventPage:
            request = front_protocol.ReadEvents(1, "job-1", 0, 1000)
            return await read_event_page(
                harness.lifecycle,
                harness.queue_manager,
                harness.job_reader,
                harness.wait_statuses,
                request,
            )

        live = harness.lifecycle.submit(make_submission(retries=1))
        await harness.journal.flush()
        page = await read()
        assert page.waiting is not None
        assert (page.waiting.seq, page.waiting.reason, page.waiting.position) == (1, "ready", 1)
        document = json.loads(page.job)
        assert (document["position"], document["eta_s"]) == (1, 0.0)
        harness.start(live)
        await harness.journal.flush()
        assert (await read()).waiting is None
        harness.end(live, "timeout")
        assert (await read()).waiting is None, "the event that says so is not durable yet"
        await harness.journal.flush()
        waiting = (await read()).waiting
        assert waiting is not None
        assert waiting.message == "attempt 1 failed: why; retry in about 1 s"

    run(body)
