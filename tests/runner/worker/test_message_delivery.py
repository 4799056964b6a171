"""What goes up stays safe: acknowledgements, a cut link, a dead coordinator, many small jobs."""

from __future__ import annotations

import asyncio
import time

import pytest

from runner.processes import orphans
from runner.protocol import worker as worker_protocol
from runner.protocol.spool import read_spools
from runner.protocol.worker import AttemptEnded, AttemptsRecalled, ExecutorGone, ExecutorLoaded, RunAttempts
from tests.runner.worker.fake_coordinator import StubCoordinator, attempt

JOBS = 1_000


def test_staged_jobs_flow_through(capsys: object) -> None:
    async def scenario() -> float:
        async with StubCoordinator() as fake:
            fake.load(1, "echo", attempt("warm", data=0))
            await fake.wait_for_end("warm")
            began = time.monotonic()
            for first in range(0, JOBS, 16):
                line = [attempt(f"{n}", data=n) for n in range(first, min(JOBS, first + 16))]
                fake.send(RunAttempts(1, line))
            await fake.until(lambda: len(fake.messages_of(AttemptEnded)) == JOBS + 1, within_s=20)
            assert [each.output for each in fake.messages_of(AttemptEnded)[1:]] == [
                b"%d" % n for n in range(JOBS)
            ]
            return JOBS / (time.monotonic() - began)

    print(f"\n{asyncio.run(scenario()):.0f} staged no-ops per second through one worker")


@pytest.mark.timed
def test_unacknowledged_results_are_in_the_spool_when_the_coordinator_dies() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.acknowledges = False
            fake.load(1, "echo", *(attempt(f"{n}", data=n) for n in range(200)))
            await fake.until(lambda: len(fake.messages_of(AttemptEnded)) == 200)
            fake.load(2, "brood", attempt("x", "brood", {"s": 60}))
            await fake.until(lambda: fake.events_of("x"))
            began = time.monotonic()
            fake.worker.lifeline.close()
            await asyncio.to_thread(fake.worker.process.wait, 5)
            assert time.monotonic() - began < 1.0
            assert not orphans.find_marked(f"{fake.name}/")
            (spool,) = read_spools(fake.folder)
            ends = [
                each
                for each in map(worker_protocol.from_worker_decoder.decode, spool.messages)
                if isinstance(each, AttemptEnded)
            ]
            assert sorted(int(each.job_id) for each in ends[:200]) == list(range(200))
            assert [(each.job_id, each.code) for each in ends[200:]] == [("x", "interrupted")]
            assert (spool.hello.name, spool.hello.token) == (fake.name, "")

    asyncio.run(scenario())


def test_acknowledged_results_are_not_spooled() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "echo", attempt("a"))
            await fake.wait_for_end("a")
            await fake.until(lambda: fake.last_number >= 3)
            fake.load(2, "echo")
            await fake.wait_for(ExecutorLoaded, executor=2)
            fake.worker.lifeline.close()
            await asyncio.to_thread(fake.worker.process.wait, 5)
            spooled = [each for spool in read_spools(fake.folder) for each in spool.messages]
            assert not [
                each
                for each in map(worker_protocol.from_worker_decoder.decode, spooled)
                if not isinstance(each, ExecutorGone | ExecutorLoaded)
            ]

    asyncio.run(scenario())


def test_what_a_cut_link_lost_is_sent_again() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "linger", attempt("a", "linger", {"s": 1.0}), attempt("b", "linger", {"s": 0}))
            await fake.until(lambda: fake.messages_of(ExecutorLoaded))
            fake.router.close()
            fake.seen.clear()
            fake.last_number = 0
            fake.router = fake._router()
            fake.router.open()
            await fake.until(lambda: len(fake.hellos) == 2)
            assert fake.hellos[1].running == [("a", 1), ("b", 1)]
            assert (await fake.wait_for_end("a")).code is None
            assert (await fake.wait_for_end("b")).code is None
            numbers = [fake.seen.index(each) for each in fake.messages_of(AttemptEnded)]
            assert numbers == sorted(numbers)

    asyncio.run(scenario())


def test_full_window_stops_the_executor_and_an_acknowledgement_frees_it() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.acknowledges = False
            fake.load(1, "echo", attempt("warm"))
            await fake.wait_for_end("warm")
            big = "x" * 100_000
            for first in range(0, 400, 16):
                fake.send(RunAttempts(1, [attempt(f"{n}", data=big) for n in range(first, first + 16)]))
            await fake.until(lambda: len(fake.messages_of(AttemptEnded)) > 80)
            for number in range(20):
                # The worker itself answers on.
                fake.send(RunAttempts(99, [attempt(f"lost {number}")]))
                await fake.wait_for(AttemptsRecalled, attempts=[(f"lost {number}", 1)])
            assert len(fake.messages_of(AttemptEnded)) < 200
            fake.acknowledges = True
            fake.send(worker_protocol.Ack(fake.last_number))
            await fake.until(lambda: len(fake.messages_of(AttemptEnded)) == 401, within_s=20)
            assert len({each.job_id for each in fake.messages_of(AttemptEnded)}) == 401

    asyncio.run(scenario())


@pytest.mark.slow
def test_second_worker_of_a_device_waits_and_gives_up() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            first = fake.worker
            fake.start_worker()
            second, fake.worker = fake.worker, first
            assert await asyncio.to_thread(second.process.wait, 8) == 3
            second.close()
            fake.load(1, "echo", attempt("a"))
            assert (await fake.wait_for_end("a")).code is None
            assert not fake.messages_of(ExecutorGone)

    asyncio.run(scenario())
