"""Where queued jobs wait: those of which memory keeps but the number lose nothing by it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu.job_class import JobClass
from gpu.planning.explain import explain
from runner.coordinator.components import PersistedState
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.lifecycle import recovery
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.coordinator.queue.spill import QueueBounds
from runner.jobs.job import ENDED, Job
from runner.jobs.job_query import JobQuery
from runner.stores.sqlite.access import MemoryAccess
from runner.stores.store import WriteBatch
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, make_submission, run, spec

TINY = QueueBounds(
    kept_jobs_max=3, window_jobs=4, large_backlog_jobs=8, small_window_jobs=2, rows_per_read=3, due_per_turn=2
)


async def make_harness(access: MemoryAccess, before: LifecycleHarness | None = None) -> LifecycleHarness:
    """A coordinator's rooms over what is in the store, as after a start."""
    epoch = await access.take_epoch()
    harness = LifecycleHarness(
        access,
        epoch,
        clock=None if before is None else before.clock,
        kept=await PersistedState.load(access),
        bounds=TINY,
        queued_max=1_000,
    )
    harness.queue_manager.set_handlers({})
    left = await access.run_read(lambda store: recovery.RecoveredState.load(store, [], harness.clock.now()))
    recovery.recover(harness.lifecycle, harness.queue_manager, left, [])
    await harness.journal.flush()
    harness.queue_manager.set_handlers({"h": spec()})
    return harness


async def settle(harness: LifecycleHarness) -> None:
    """What was let go of and what is to follow have gone their ways."""
    for _ in range(12):
        harness.queue_manager.windows.refill()
        await harness.journal.flush()


def heads(harness: LifecycleHarness) -> list[tuple[JobClass, int]]:
    """The first job of each class in view, the most urgent class first."""
    lines = [(cls, line.first) for cls, line in harness.scheduler_state.backlog.by_class.items()]
    return sorted(lines, key=lambda entry: (-entry[0].priority, entry[1]))


def take(harness: LifecycleHarness, cls: JobClass, n: int) -> LiveJob:
    """What dispatch does with the head of a class."""
    live = harness.lifecycle.registry.by_number[n]
    harness.start(live)
    return live


async def drain(harness: LifecycleHarness) -> list[LiveJob]:
    """Run all that waits to its end; in the order of the starts."""
    ran: list[LiveJob] = []
    for _ in range(10_000):
        await settle(harness)
        if not harness.scheduler_state.backlog.by_class:
            return ran
        live = take(harness, *heads(harness)[0])
        harness.end(live, output=b"1")
        ran.append(live)
    raise AssertionError("it never ends")


async def all_stored(harness: LifecycleHarness) -> list[Job]:
    return await harness.access.run_read(lambda store: store.find_jobs(JobQuery(order="asc", limit=500)))


def test_a_long_line_is_mostly_asleep_and_keeps_its_order() -> None:
    async def body(unused: LifecycleHarness) -> None:
        harness = await make_harness(MemoryAccess())
        for number in range(60):
            harness.lifecycle.submit(make_submission(number, priority=50 + 10 * (number % 2)))
        await settle(harness)
        assert len(harness.lifecycle.registry) <= TINY.large_backlog_jobs + 2 * TINY.window_jobs
        assert harness.lifecycle.registry.queued_count == 60
        ran = await drain(harness)
        assert [live.job.number for live in ran] == [*range(2, 61, 2), *range(1, 61, 2)]
        await harness.journal.flush()
        assert len(harness.lifecycle.registry) == 0 and harness.queue_manager.spill_pool.input_bytes == 0
        assert [job.state for job in await all_stored(harness)] == ["succeeded"] * 60

    run(body)


def test_after_a_start_they_go_on_in_their_order() -> None:
    async def body(unused: LifecycleHarness) -> None:
        first = await make_harness(MemoryAccess())
        for number in range(40):
            first.lifecycle.submit(make_submission(number))
        await settle(first)
        running = take(first, *heads(first)[0])
        await first.journal.flush()
        again = await make_harness(first.access, first)
        assert again.lifecycle.registry.queued_count == 40
        ran = await drain(again)
        assert [live.job.number for live in ran] == list(range(1, 41))
        assert ran[0].job.id == running.job.id and ran[0].job.attempt == 2

    run(body)


def test_sleeping_jobs_wait_for_their_handler() -> None:
    async def body(unused: LifecycleHarness) -> None:
        harness = await make_harness(MemoryAccess())
        for number in range(20):
            harness.lifecycle.submit(make_submission(number))
        await settle(harness)
        again = await make_harness(harness.access, harness)
        again.queue_manager.set_handlers({})
        job = await again.read_stored("job-19")
        assert again.queue_manager.reasons.for_stored_job(job) == "waiting_for_handler"
        tally = [
            entry for entry in again.queue_manager.counts_by_reason() if entry[1] == "waiting_for_handler"
        ]
        assert tally == [("default", "waiting_for_handler", 20, 1_000.0)]
        again.queue_manager.set_handlers({"h": spec()})
        assert len(await drain(again)) == 20

    run(body)


def test_a_sleeping_job_is_roused_cancelled_and_missed_by_nobody() -> None:
    async def body(unused: LifecycleHarness) -> None:
        harness = await make_harness(MemoryAccess())
        for number in range(30):
            harness.lifecycle.submit(make_submission(number))
        await settle(harness)
        assert "job-20" not in harness.lifecycle.registry.by_id
        live = await harness.queue_manager.spill_pool.load_job("job-20")
        assert live is not None and live.phase == "behind"
        assert await harness.queue_manager.spill_pool.load_job("job-20") is live
        harness.lifecycle.cancel_unstarted(live, "by hand")
        await harness.journal.flush()
        assert (await harness.read_stored("job-20")).state == "cancelled"
        assert await harness.queue_manager.spill_pool.load_job("job-20") is None
        assert await harness.queue_manager.spill_pool.load_job("nobody") is None
        ran = await drain(harness)
        assert [live.job.id for live in ran] == [f"job-{n}" for n in range(30) if n != 20]

    run(body)


def test_who_is_waited_for_stays_in_memory_and_in_its_place() -> None:
    async def body(unused: LifecycleHarness) -> None:
        harness = await make_harness(MemoryAccess())
        for number in range(30):
            harness.lifecycle.submit(make_submission(number))
        live = harness.lifecycle.registry.by_id["job-25"]
        ends: list[LiveJob] = []
        live.add_end_callback(ends.append)
        await settle(harness)
        assert harness.lifecycle.registry.by_id["job-25"] is live and live.phase == "behind"
        live.remove_end_callback(ends.append)
        harness.queue_manager.spill_pool.maybe_spill(live)
        await settle(harness)
        assert "job-25" not in harness.lifecycle.registry.by_id
        assert [live.job.number for live in await drain(harness)] == list(range(1, 31))

    run(body)


def test_delayed_jobs_sleep_until_their_moment() -> None:
    async def body(unused: LifecycleHarness) -> None:
        harness = await make_harness(MemoryAccess())
        for number in range(20):
            harness.lifecycle.submit(make_submission(number, delay_s=10.0 + number % 2))
        await settle(harness)
        assert (
            len(harness.lifecycle.registry) <= TINY.kept_jobs_max + 1
            and not harness.scheduler_state.backlog.by_class
        )
        assert (
            harness.queue_manager.reasons.for_stored_job(await harness.read_stored("job-19")) == "scheduled"
        )
        assert list(harness.queue_manager.counts_by_reason()) == [("default", "scheduled", 20, None)]
        await harness.pass_time(9.9)
        assert await drain(harness) == []
        again = await make_harness(harness.access, harness)
        for _ in range(10):
            await again.pass_time(0.02)
        assert sorted(live.job.number for live in await drain(again)) == list(range(1, 21, 2))
        await again.pass_time(1.0)
        for _ in range(10):
            await again.pass_time(0.0)
        assert sorted(live.job.number for live in await drain(again)) == list(range(2, 21, 2))

    run(body)


def test_sleeping_jobs_end_when_they_waited_too_long() -> None:
    async def body(unused: LifecycleHarness) -> None:
        harness = await make_harness(MemoryAccess())
        for number in range(20):
            harness.lifecycle.submit(make_submission(number, queue_timeout_s=5.0 if number % 4 else None))
        await settle(harness)
        for _ in range(20):
            await harness.pass_time(0.3)
            await settle(harness)
        stored = await all_stored(harness)
        assert [job.state for job in stored] == ["queued", "failed", "failed", "failed"] * 5
        assert {job.error.code for job in stored if job.error is not None} == {"queue_timeout"}
        assert stored[-1].error is not None and "queue_timeout_s=5" in stored[-1].error.message
        assert len(await drain(harness)) == 5

    run(body)


def test_a_limit_outlives_the_start_that_made_it_and_ends_with_the_first_attempt() -> None:
    async def body(unused: LifecycleHarness) -> None:
        harness = await make_harness(MemoryAccess())
        for number in range(12):
            harness.lifecycle.submit(make_submission(number, queue_timeout_s=5.0))
        await settle(harness)
        started = take(harness, *heads(harness)[0])
        await harness.journal.flush()
        again = await make_harness(harness.access, harness)
        await settle(again)
        for _ in range(20):
            await again.pass_time(0.3)
            await settle(again)
        stored = await all_stored(again)
        assert Counter(job.state for job in stored) == {"failed": 11, "queued": 1}
        assert [job.id for job in stored if job.state == "queued"] == [started.job.id]

    run(body)


def test_a_read_that_fails_is_made_again() -> None:
    async def body(unused: LifecycleHarness) -> None:
        harness = await make_harness(MemoryAccess())
        for number in range(20):
            harness.lifecycle.submit(make_submission(number))
        await settle(harness)
        failures = [OSError("stuck")]

        class FailingReader(JobReader):
            async def load_rows(self, numbers: Sequence[int]) -> list[tuple[Job, bytes | None]]:
                if failures:
                    raise failures.pop()
                return await super().load_rows(numbers)

        harness.queue_manager.spill_pool._row_reader = FailingReader(harness.access, harness.journal)
        while len(await drain(harness)) == 0 or harness.lifecycle.registry.queued_count:
            await asyncio.sleep(0.01)
        assert not failures

    run(body)


def test_a_number_that_the_store_does_not_hold_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    async def body(unused: LifecycleHarness) -> None:
        harness = await make_harness(MemoryAccess())
        for number in range(20):
            harness.lifecycle.submit(make_submission(number))
        await settle(harness)
        harness.access._store._delete(15)
        assert len(await drain(harness)) == 19

    run(body)
    assert "job number 15 is queued, but the store does not hold it" in caplog.text


def test_many_classes_share_what_memory_holds() -> None:
    async def body(unused: LifecycleHarness) -> None:
        harness = await make_harness(MemoryAccess())
        for number in range(200):
            harness.lifecycle.submit(make_submission(number, queue=f"q{number % 20}"))
        await settle(harness)
        assert len(harness.scheduler_state.backlog.by_class) == 20
        assert len(harness.lifecycle.registry) <= TINY.large_backlog_jobs + 20 * TINY.small_window_jobs
        ran = [live.job for live in await drain(harness)]
        for queue in range(20):
            assert [job.number for job in ran if job.queue == f"q{queue}"] == list(range(queue + 1, 201, 20))

    run(body)


def test_how_many_go_before_a_sleeping_job() -> None:
    async def body(unused: LifecycleHarness) -> None:
        harness = await make_harness(MemoryAccess())
        for number in range(60):
            harness.lifecycle.submit(make_submission(number, priority=(40, 50, 60)[number % 3]))
        await settle(harness)
        for number, ahead in ((58, 20 + 19), (59, 19), (57, 40 + 19)):
            job = await harness.read_stored(f"job-{number}")
            cls = next(
                cls for cls in harness.scheduler_state.backlog.by_class if cls.priority == job.priority
            )
            told = explain(harness.scheduler_state, cls, job.number)[
                "jobs_ahead"
            ] + harness.queue_manager.jobs_ahead(cls, job.number)
            assert told == ahead

    run(body)


class Slow(MemoryAccess):
    """Commits wait while `open` is not set; whoever wants to know sees that one has come."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()
        self.came = asyncio.Event()

    async def commit(self, epoch: int, batch: WriteBatch) -> None:
        self.came.set()
        await self.open.wait()
        await super().commit(epoch, batch)


def test_one_that_changed_during_its_commit_is_kept_until_the_next() -> None:
    async def body(unused: LifecycleHarness) -> None:
        access = Slow()
        harness = await make_harness(access)
        for number in range(10):
            harness.lifecycle.submit(make_submission(number))
        await settle(harness)
        access.open.clear()
        access.came.clear()
        live = harness.lifecycle.submit(make_submission(77, retries=1))
        seen: list[bool] = []
        harness.journal.call_when_durable(lambda _: seen.append("job-77" in harness.lifecycle.registry.by_id))
        await access.came.wait()
        assert live.phase == "behind"
        harness.start(live)
        harness.end(live, "handler_error")
        access.open.set()
        await settle(harness)
        assert seen == [True] and "job-77" not in harness.lifecycle.registry.by_id
        assert (await harness.read_stored("job-77")).attempt == 1

    run(body)


def test_a_row_that_is_older_than_what_memory_knew_is_not_believed() -> None:
    async def body(unused: LifecycleHarness) -> None:
        harness = await make_harness(MemoryAccess())
        for number in range(20):
            harness.lifecycle.submit(make_submission(number, retries=1))
        await settle(harness)
        sleep, later = harness.queue_manager.spill_pool, asyncio.Event()

        class LateReader(JobReader):
            async def load_rows(self, numbers: Sequence[int]) -> list[tuple[Job, bytes | None]]:
                found = await super().load_rows(numbers)
                await later.wait()
                return found

        sleep._row_reader = LateReader(harness.access, harness.journal)
        bringing = asyncio.create_task(sleep.load([20]))
        await asyncio.sleep(0)
        live = await sleep.load_job("job-19")
        assert live is not None and live.job.number == 20
        harness.start(live)
        harness.end(live, "handler_error")
        await harness.journal.flush()
        await harness.pass_time(5.0)
        assert "job-19" not in harness.lifecycle.registry.by_id
        later.set()
        await bringing
        assert "job-19" not in harness.lifecycle.registry.by_id
        again = await sleep.load_job("job-19")
        assert again is not None and (again.job.attempt, again.phase) == (1, "behind")

    run(body)


MOVES = st.lists(
    st.tuples(
        st.sampled_from(
            ["submit"] * 6 + ["start"] * 4 + ["fail", "cancel", "pass", "settle", "restart", "handlers"]
        ),
        st.integers(0, 1_000),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MOVES)
def test_whatever_happens_every_job_ends_once(moves: list[tuple[str, int]]) -> None:
    async def body(unused: LifecycleHarness) -> None:
        play = Play(await make_harness(MemoryAccess()))
        for move, number in moves:
            await play.move(move, number)
        await play.finish()

    run(body)


class Play:
    """Moves at random over one store, and what has to hold of them."""

    def __init__(self, harness: LifecycleHarness) -> None:
        self.harness = harness
        self.count = 0
        self.ends: Counter[str] = Counter()
        #: Priority -> jobs that wait for nothing but their turn.
        self.turns: defaultdict[int, set[int]] = defaultdict(set)

    async def move(self, move: str, number: int) -> None:
        harness, chance = self.harness, random.Random(number)
        match move:
            case "submit":
                for _ in range(chance.randint(1, 8)):
                    self.submit(chance)
            case "start" if harness.scheduler_state.backlog.by_class:
                harness.end(self.take(*heads(harness)[0]), output=b"1")
            case "fail" if harness.scheduler_state.backlog.by_class:
                harness.end(self.take(*chance.choice(heads(harness))), "handler_error")
            case "cancel" if self.count:
                live_ = await harness.queue_manager.spill_pool.load_job(
                    f"job-{chance.randint(1, self.count)}"
                )
                if live_ is not None and live_.phase != "ended":
                    self.turns[live_.job.priority].discard(live_.job.number)
                    harness.lifecycle.cancel_unstarted(live_, "by hand")
            case "pass":
                await harness.pass_time(chance.choice([0.1, 1.0, 5.0]))
            case "settle":
                await settle(harness)
            case "restart":
                await harness.journal.flush()
                self.harvest()
                self.harness = await make_harness(harness.access, harness)
            case "handlers":
                harness.queue_manager.set_handlers({})
                harness.queue_manager.set_handlers({"h": spec()})
        await self.check()

    def take(self, cls: JobClass, n: int) -> LiveJob:
        """Of those who only wait for their turn the first one starts, awake or asleep."""
        turns = self.turns[cls.priority]
        assert n not in turns or n == min(turns)
        turns.discard(n)
        return take(self.harness, cls, n)

    def submit(self, chance: random.Random) -> None:
        self.count += 1
        live = self.harness.lifecycle.submit(
            make_submission(
                self.count,
                priority=chance.choice([50, 50, 60]),
                vram_bytes=chance.choice([None, 1 << 20]),
                delay_s=chance.choice([None, None, 0.5, 3.0]),
                queue_timeout_s=chance.choice([None, None, 2.0]),
                retries=chance.choice([0, 2]),
            )
        )
        if live.job.reason is None and live.job.terms.queue_timeout_s is None:
            self.turns[live.job.priority].add(live.job.number)

    async def check(self) -> None:
        book, waiting = self.harness.lifecycle.registry, self.harness.queue_manager
        told = Counter[str]()
        for queue, _, jobs, _ in waiting.counts_by_reason():
            told[queue] += jobs
        assert told["default"] == book.queued_count == book.counts["default", "queued"]
        assert waiting.spill_pool.input_bytes == sum(
            live.job.input_bytes for live in book if live.input is not None
        )

    def harvest(self) -> None:
        for job_id, kinds in self.harness.published:
            self.ends[job_id] += kinds.count("done")

    async def finish(self) -> None:
        harness = self.harness
        for _ in range(40):
            await drain(harness)
            await harness.pass_time(30.0)
        await harness.journal.flush()
        self.harvest()
        stored = await all_stored(harness)
        assert len(stored) == self.count and all(job.state in ENDED for job in stored)
        assert self.ends == {job.id: 1 for job in stored}
        assert list(harness.queue_manager._index) == [] and len(harness.queue_manager._deadlines) == 0
        assert len(harness.lifecycle.registry) == 0
