"""Group commit: what goes in together, who is told when, and what a refusal does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from runner.coordinator.jobs.event_json import status_fields
from runner.coordinator.lifecycle import recovery
from runner.coordinator.storage.durable_events import ALL_JOBS, DurableEvents
from runner.coordinator.storage.journal import Journal
from runner.errors import Fenced, StoreUnavailable
from runner.jobs.event import Event
from runner.jobs.job import Job, JobTerms
from runner.stores.store import WriteBatch


class Committer:
    """A store that keeps its batches, and refuses while told to."""

    def __init__(self) -> None:
        self.batches: list[WriteBatch] = []
        self.refusal: StoreUnavailable | None = None
        self.unforeseen: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def commit(self, epoch: int, batch: WriteBatch) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        if self.unforeseen is not None:
            raise self.unforeseen
        self.batches.append(batch)


class JournalHarness:
    def __init__(self, patience_s: float = 60.0) -> None:
        self.committer = Committer()
        self.published: list[tuple[int, list[int]]] = []
        self.fenced: list[Fenced] = []
        self.commits: list[float] = []
        durable_events = DurableEvents()
        durable_events.subscribe(ALL_JOBS, self)
        self.journal = Journal(
            self.committer,
            1,
            durable_events=durable_events,
            on_fenced=self.fenced.append,
            on_commit=self.commits.append,
            slow_commit_s=patience_s,
        )

    def on_events(self, job: Job, events: list[Event]) -> None:
        self.published.append((job.number, [entry.seq for entry in events]))


def make_job(n: int = 1) -> Job:
    return Job(n, f"job-{n}", "h", "default", 50, 0.0, JobTerms(), 2)


def run(body: Callable[[JournalHarness], Awaitable[None]], *, patience_s: float = 60.0) -> JournalHarness:
    harness = JournalHarness(patience_s)

    async def main() -> None:
        await asyncio.wait_for(body(harness), 5)

    asyncio.run(main())
    return harness


def test_insert_and_end_of_a_short_job_are_one_row() -> None:
    async def body(harness: JournalHarness) -> None:
        job = make_job()
        harness.journal.insert(job, b"{}")
        harness.journal.add_event(job, "status", 0.0, status_fields(job, "ready"))
        job.state = "succeeded"
        harness.journal.add_event(job, "done", 0.0, b"{}")
        harness.journal.add_output(job, b"1")
        await harness.journal.flush()

    (batch,) = run(body).committer.batches
    assert [job.state for job, _ in batch.inserts] == ["succeeded"]
    assert (batch.updates, batch.outputs) == ([], [(1, b"1")])
    assert [(chunk.first_seq, chunk.last_seq) for chunk in batch.events] == [(1, 2)]


def test_a_requested_commit_goes_before_what_is_scheduled_later_and_takes_the_whole_iteration() -> None:
    order: list[str] = []

    async def body(harness: JournalHarness) -> None:
        harness.journal.commit_soon()
        asyncio.get_running_loop().call_soon(
            lambda: order.append(f"other work, {len(harness.committer.batches)} batches")
        )
        harness.journal.insert(make_job(1), b"{}")
        harness.journal.insert(make_job(2), b"{}")
        await harness.journal.flush()

    (batch,) = run(body).committer.batches
    assert [job.number for job, _ in batch.inserts] == [1, 2]
    assert order == ["other work, 1 batches"]


def test_events_are_told_after_the_commit_that_holds_them() -> None:
    async def body(harness: JournalHarness) -> None:
        harness.committer.gate = asyncio.Event()
        job = make_job()
        harness.journal.insert(job, b"{}")
        harness.journal.add_event(job, "status", 0.0, b"{}")
        flushed = asyncio.ensure_future(harness.journal.flush())
        while not harness.journal._committing_first_seq:
            await asyncio.sleep(0)
        harness.journal.add_event(job, "progress", 0.0, b"{}")
        assert (harness.published, harness.journal.durable_seq(job)) == ([], 0)
        harness.committer.gate.set()
        await flushed
        assert (harness.published, harness.journal.durable_seq(job)) == ([(1, [1])], 1)
        await harness.journal.flush()

    assert run(body).published == [(1, [1]), (1, [2])]


def test_a_burst_of_events_is_cut_into_rows_that_a_page_can_afford() -> None:
    async def body(harness: JournalHarness) -> None:
        job = make_job()
        for _ in range(300):
            harness.journal.add_event(job, "output", 0.0, b'{"chunk":"%s"}' % (b"x" * 1000))
        await harness.journal.flush()

    harness = run(body)
    (batch,) = harness.committer.batches
    assert harness.published == [(1, list(range(1, 301)))]
    decoded = [msgspec.msgpack.decode(row.body, type=list[Event]) for row in batch.events]
    assert [event.seq for events in decoded for event in events] == list(range(1, 301))
    assert [(row.first_seq, row.last_seq) for row in batch.events] == [
        (events[0].seq, events[-1].seq) for events in decoded
    ]
    assert len(batch.events) > 4 and all(len(row.body) < 70_000 for row in batch.events)


def test_a_refusal_is_told_and_nothing_is_forgotten() -> None:
    async def body(harness: JournalHarness) -> None:
        told: list[StoreUnavailable | None] = []
        patient: list[StoreUnavailable | None] = []
        done = asyncio.Event()
        harness.committer.refusal = StoreUnavailable("disk full")
        job = make_job()
        harness.journal.insert(job, b"{}")
        harness.journal.add_event(job, "status", 0.0, b"{}")
        harness.journal.call_when_durable(lambda failure: patient.append(failure), is_patient=True)
        harness.journal.call_when_durable(lambda _: done.set(), is_patient=True)
        try:
            await harness.journal.flush()
        except StoreUnavailable as refusal:
            told.append(refusal)
        assert told == [harness.committer.refusal]
        assert (harness.journal.failure, patient) == (harness.committer.refusal, [])
        harness.committer.refusal = None
        await done.wait()
        assert (harness.journal.failure, patient) == (None, [None])

    (batch,) = run(body).committer.batches
    assert [job.number for job, _ in batch.inserts] == [1]
    assert len(batch.events) == 1


def test_a_withdrawn_insert_is_never_written() -> None:
    async def body(harness: JournalHarness) -> None:
        harness.committer.refusal = StoreUnavailable("disk full")
        job, other = make_job(1), make_job(2)
        harness.journal.insert(job, b"{}")
        harness.journal.insert(other, b"{}")
        try:
            await harness.journal.flush()
        except StoreUnavailable:
            harness.journal.withdraw(job)
        harness.committer.refusal = None
        settled = asyncio.Event()
        harness.journal.call_when_durable(lambda _: settled.set(), is_patient=True)
        await settled.wait()

    (batch,) = run(body).committer.batches
    assert [job.number for job, _ in batch.inserts] == [2]


def test_a_fenced_journal_writes_nothing_more() -> None:
    async def body(harness: JournalHarness) -> None:
        harness.committer.refusal = Fenced("epoch 2 is in force")
        harness.journal.insert(make_job(), b"{}")
        try:
            await harness.journal.flush()
        except Fenced:
            harness.committer.refusal = None
        harness.journal.update(make_job())
        harness.journal.commit_soon()
        await asyncio.sleep(0)

    harness = run(body)
    assert len(harness.fenced) == 1
    assert harness.committer.batches == []


def test_a_callback_without_writes_is_called_all_the_same() -> None:
    async def body(harness: JournalHarness) -> None:
        await harness.journal.flush()

    assert run(body).committer.batches == []


def test_who_hurries_during_a_commit_gets_the_next_one_at_once() -> None:
    async def body(harness: JournalHarness) -> None:
        harness.committer.gate = asyncio.Event()
        harness.journal.insert(make_job(1), b"{}")
        harness.journal.commit_soon()
        while harness.journal._pending.has_rows():
            await asyncio.sleep(0)
        harness.journal.insert(make_job(2), b"{}")
        told: list[None] = []
        harness.journal.call_when_durable(lambda _: told.append(None))
        harness.committer.gate.set()
        # Turns of the loop that take microseconds: a timer of 5 ms would not fire within them.
        for _ in range(20):
            await asyncio.sleep(0)
        assert told == [None]

    assert len(run(body).committer.batches) == 2


def test_an_unforeseen_failure_refuses_and_is_tried_again() -> None:
    async def body(harness: JournalHarness) -> None:
        told: list[str] = []
        gate = harness.committer.gate = asyncio.Event()
        harness.journal.insert(make_job(), b"{}")
        harness.journal.call_when_durable(
            lambda failure: told.append("" if failure is None else failure.message)
        )
        harness.committer.unforeseen = ZeroDivisionError()
        gate.set()
        while not told:
            await asyncio.sleep(0)
        assert "ZeroDivisionError" in told[0] and harness.journal.failure is not None
        harness.committer.unforeseen = None
        while harness.journal.failure is not None:
            await asyncio.sleep(0.01)

    assert len(run(body).committer.batches) == 1


def test_one_who_fails_over_a_commit_keeps_nobody_else_waiting() -> None:
    async def body(harness: JournalHarness) -> None:
        harness.journal.insert(make_job(), b"{}")
        harness.journal.call_when_durable(lambda _: [][0])
        await harness.journal.flush()

    assert len(run(body).committer.batches) == 1


def test_who_waits_for_a_late_commit_is_told_and_the_commit_goes_on() -> None:
    async def body(harness: JournalHarness) -> None:
        harness.committer.gate = asyncio.Event()
        told: list[StoreUnavailable | None] = []
        patient: list[StoreUnavailable | None] = []
        harness.journal.insert(make_job(), b"{}")
        harness.journal.call_when_durable(told.append)
        harness.journal.call_when_durable(patient.append, is_patient=True)
        while not told:
            await asyncio.sleep(0.001)
        assert isinstance(told[0], StoreUnavailable) and harness.journal.failure is told[0]
        assert (patient, harness.committer.batches) == ([], [])
        harness.committer.gate.set()
        while not patient:
            await asyncio.sleep(0)
        assert harness.journal.failure is None

    harness = run(body, patience_s=0.01)
    assert [[job.number for job, _ in batch.inserts] for batch in harness.committer.batches] == [[1]]


def test_a_job_taken_back_while_its_commit_was_late_is_removed_again() -> None:
    async def body(harness: JournalHarness) -> None:
        harness.committer.gate = asyncio.Event()
        job = make_job()
        harness.journal.insert(job, b"{}")
        harness.journal.call_when_durable(lambda _: harness.journal.withdraw(job))
        while harness.journal.failure is None:
            await asyncio.sleep(0.001)
        harness.committer.gate.set()
        while len(harness.committer.batches) < 2:
            await asyncio.sleep(0)

    harness = run(body, patience_s=0.01)
    assert [batch.deletes for batch in harness.committer.batches] == [[], [1]]


def test_a_start_waits_for_a_store_that_refuses_for_a_while() -> None:
    async def body(harness: JournalHarness) -> None:
        harness.committer.refusal = StoreUnavailable("locked")
        harness.journal.insert(make_job(), b"{}")
        durable = asyncio.ensure_future(recovery.make_durable(harness.journal))
        while harness.journal.failure is None:
            await asyncio.sleep(0.001)
        assert not durable.done()
        harness.committer.refusal = None
        await durable

    assert len(run(body).committer.batches) == 1


def test_a_start_does_not_wait_for_a_store_that_another_has_taken_over() -> None:
    async def body(harness: JournalHarness) -> None:
        harness.committer.refusal = Fenced("epoch 2 is in force")
        harness.journal.insert(make_job(), b"{}")
        with pytest.raises(Fenced):
            await recovery.make_durable(harness.journal)

    assert [str(fenced) for fenced in run(body).fenced] == ["epoch 2 is in force"]
