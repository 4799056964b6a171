"""Attempts that run together, in a batch or side by side: who pays for what befalls them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

import msgspec
import pytest

from runner.handlers.spec import BatchOptions, HandlerOptions
from runner.protocol.worker import (
    AttemptEnded,
    AttemptSpec,
    AttemptsRecalled,
    AttemptStarted,
    CancelAttempt,
    ExecutorGone,
    ExecutorLoaded,
    LoadExecutor,
    RunAttempts,
    Stop,
)
from tests.runner.worker.fake_coordinator import StubCoordinator, attempt, spec

BATCHED = HandlerOptions(batch=BatchOptions(8, 0.02))
ASIDE = HandlerOptions(slots=4)


def batch(**inputs: dict[str, Any]) -> list[AttemptSpec]:
    return [attempt(job, "many", data, timeout_s=60.0) for job, data in inputs.items()]


def side_by_side(**inputs: dict[str, Any]) -> list[AttemptSpec]:
    return [attempt(job, "aside", data, timeout_s=60.0) for job, data in inputs.items()]


async def load(fake: StubCoordinator, executor: int, handler: str, options: HandlerOptions) -> None:
    kind: Literal["function", "coroutine"] = "coroutine" if options.slots > 1 else "function"
    described = msgspec.structs.replace(spec(handler), options=options, kind=kind)
    fake.send(LoadExecutor(executor, described, ["cpu"], {}, "cpu"))
    await fake.wait_for(ExecutorLoaded)


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


async def begun(fake: StubCoordinator, *jobs: str) -> None:
    await fake.until(lambda: all(("output", {"chunk": "begun"}) in fake.events_of(job) for job in jobs))


def test_a_batch_starts_and_ends_as_one_and_each_is_told() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "many", BATCHED)
            fake.send(RunAttempts(1, batch(a={"s": 0.1}, b={})), RunAttempts(1, batch(c={})))
            for job, together in (("a", 2), ("b", 2), ("c", 1)):
                ended = await fake.wait_for_end(job)
                assert (ended.code, ended.output, ended.batch_size) == (
                    None,
                    b'"%b"' % job.encode(),
                    together,
                )
                assert ("log", {"stream": "stdout", "level": None, "text": "from C"}) in fake.events_of(job)
            assert {one.job_id for one in fake.messages_of(AttemptStarted)} >= {"a", "b"}

    play(scenario())


@pytest.mark.parametrize("how", ["segv", "SIGKILL", "exit"])
def test_a_death_in_a_batch_blames_nobody_and_one_alone(how: str) -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "many", BATCHED)
            fake.send(
                RunAttempts(1, batch(a={}, b={"how": how, "code": 0}, c={})), RunAttempts(1, batch(d={}))
            )
            for job in "abc":
                ended = await fake.wait_for_end(job)
                assert (ended.code, ended.executor_died, ended.is_blame_unknown, ended.batch_size) == (
                    "worker_crashed",
                    True,
                    True,
                    3,
                )
            assert (await fake.wait_for(ExecutorGone)).not_started == [("d", 1)]
            await load(fake, 2, "many", BATCHED)
            fake.send(RunAttempts(2, batch(e={"how": how, "code": 0})))
            ended = await fake.wait_for_end("e")
            assert (ended.code, ended.executor_died, ended.is_blame_unknown) == (
                "worker_crashed",
                True,
                False,
            )

    play(scenario())


def test_a_cancelled_mate_leaves_the_others_alone() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "many", BATCHED)
            fake.send(RunAttempts(1, batch(a={"s": 1.2}, b={})))
            await begun(fake, "a", "b")
            fake.send(CancelAttempt("b", 1, "cancelled", "by hand", 0.0))
            assert ((await fake.wait_for_end("a")).code, fake.messages_of(ExecutorGone)) == (None, [])
            ended = await fake.wait_for_end("b")
            assert (ended.code, ended.message, ended.is_blame_unknown) == ("cancelled", "by hand", False)

    play(scenario())


def test_a_batch_all_of_which_is_cancelled_climbs_the_ladder() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "many", BATCHED)
            fake.send(RunAttempts(1, batch(a={"s": 60}, b={})), RunAttempts(1, batch(c={})))
            await begun(fake, "a", "b")
            fake.send(
                CancelAttempt("a", 1, "cancelled", "one", 0.0), CancelAttempt("b", 1, "cancelled", "two", 0.0)
            )
            assert [(await fake.wait_for_end(job)).message for job in "ab"] == ["one", "two"]
            await fake.wait_for(ExecutorGone)
            assert [key for one in fake.messages_of(AttemptsRecalled) for key in one.attempts] == [("c", 1)]

    play(scenario())


def test_a_forced_cancel_of_one_costs_the_others_nothing() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "many", BATCHED)
            fake.send(RunAttempts(1, batch(a={"s": 60}, b={})))
            await begun(fake, "a", "b")
            fake.send(CancelAttempt("b", 1, "cancelled", "now", -1.0))
            assert (await fake.wait_for_end("b")).code == "cancelled"
            ended = await fake.wait_for_end("a")
            assert (ended.code, ended.executor_died) == ("interrupted", False)

    play(scenario())


def test_one_of_a_staged_batch_is_cancelled_and_the_rest_stays_one() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "many", BATCHED)
            fake.send(
                RunAttempts(1, batch(a={"s": 0.5})),
                RunAttempts(1, batch(b={}, c={}, d={})),
                RunAttempts(1, batch(e={})),
            )
            await begun(fake, "a")
            fake.send(CancelAttempt("c", 1, "cancelled", "by hand", 0.0))
            ended = await fake.wait_for_end("c")
            assert (ended.code, ended.started_at) == ("cancelled", None)
            assert [(await fake.wait_for_end(job)).batch_size for job in "abde"] == [1, 2, 2, 1]

    play(scenario())


def test_a_batch_that_takes_too_long_is_ended_and_nobody_is_blamed_at_once() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "many", BATCHED)
            long = [attempt("a", "many", {"s": 60}, timeout_s=0.2), attempt("b", "many", {}, timeout_s=9.0)]
            fake.send(RunAttempts(1, long))
            for job in "ab":
                ended = await fake.wait_for_end(job)
                assert (ended.code, ended.is_blame_unknown, ended.batch_size) == ("timeout", True, 2)
            await load(fake, 2, "many", BATCHED)
            fake.send(RunAttempts(2, long[:1]))
            found = await fake.until(lambda: fake.messages_of(AttemptEnded, job_id="a")[1:])
            assert (found[0].code, found[0].is_blame_unknown) == ("timeout", False)

    play(scenario())


def test_a_batch_that_heeds_its_timeout_keeps_the_executor() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "many", BATCHED)
            slow = [attempt(job, "many", {"polite": True}, timeout_s=0.2) for job in "ab"]
            fake.send(RunAttempts(1, slow))
            assert [
                ((await fake.wait_for_end(job)).code, (await fake.wait_for_end(job)).is_blame_unknown)
                for job in "ab"
            ] == [("timeout", True)] * 2
            fake.send(RunAttempts(1, batch(c={})))
            assert (await fake.wait_for_end("c")).code is None
            assert fake.messages_of(ExecutorGone) == []

    play(scenario())


def test_a_cancel_while_a_batch_waits_for_its_load_leaves_one_out() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            described = msgspec.structs.replace(spec("many"), options=BATCHED)
            fake.send(LoadExecutor(1, described, ["cpu"], {}, "cpu"), RunAttempts(1, batch(a={}, b={})))
            fake.send(CancelAttempt("a", 1, "cancelled", "by hand", 0.0))
            assert (await fake.wait_for_end("a")).code == "cancelled"
            ended = await fake.wait_for_end("b")
            assert (ended.code, ended.output) == (None, b'"b"')

    play(scenario())


def test_a_stop_interrupts_a_batch_and_gives_back_the_next() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "many", BATCHED)
            fake.send(RunAttempts(1, batch(a={"s": 60}, b={})), RunAttempts(1, batch(c={}, d={})))
            await begun(fake, "a", "b")
            fake.send(Stop())
            assert [(await fake.wait_for_end(job)).code for job in "ab"] == ["interrupted"] * 2
            assert [key for one in fake.messages_of(AttemptsRecalled) for key in one.attempts] == [
                ("c", 1),
                ("d", 1),
            ]

    play(scenario())


@pytest.mark.slow
def test_a_batch_of_a_hundred_mebibytes_runs_over_one_link() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "many", BATCHED)
            padding = {"padding": "x" * (12 << 20)}
            fake.send(RunAttempts(1, batch(**dict.fromkeys("abcdefgh", padding))))
            for job in "abcdefgh":
                ended = await fake.wait_for_end(job, within_s=30)
                assert (ended.code, ended.batch_size) == (None, 8)
            assert len(fake.hellos) == 1 and fake.messages_of(ExecutorGone) == []

    play(scenario())


def test_slots_run_at_once_and_are_told_one_by_one() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "aside", ASIDE)
            fake.send(RunAttempts(1, side_by_side(a={"s": 0.6}, b={"s": 0.1}, c={})))
            for job in "cba":
                assert (await fake.wait_for_end(job)).code is None
            ended = [one.job_id for one in fake.messages_of(AttemptEnded)]
            assert ended == ["c", "b", "a"]
            assert {one.job_id for one in fake.messages_of(AttemptStarted)} >= {"a", "b"}

    play(scenario())


def test_each_slot_has_its_own_timeout_and_silence() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "aside", ASIDE)
            late = attempt("a", "aside", {"s": 60}, timeout_s=0.2)
            still = attempt("b", "aside", {"s": 60}, stall_timeout_s=0.3)
            fake.send(RunAttempts(1, [late, still, attempt("c", "aside", {"s": 1.0}, timeout_s=30.0)]))
            assert (await fake.wait_for_end("a")).code == "timeout"
            assert (await fake.wait_for_end("b")).code == "stalled"
            assert (await fake.wait_for_end("c")).code is None
            assert fake.messages_of(ExecutorGone) == []

    play(scenario())


def test_a_slot_that_does_not_end_costs_the_executor_and_the_others_nothing() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "aside", ASIDE)
            stubborn = attempt("a", "aside", {"s": 60, "stubborn": True}, timeout_s=0.2)
            fake.send(RunAttempts(1, [stubborn, *side_by_side(b={"s": 60}, c={"s": 60})]))
            ended = await fake.wait_for_end("a")
            assert (ended.code, ended.is_blame_unknown) == ("timeout", False)
            for job in "bc":
                mate = await fake.wait_for_end(job)
                assert (mate.code, mate.executor_died, mate.is_blame_unknown) == ("interrupted", False, False)

    play(scenario())


def test_a_slot_that_blocks_the_loop_is_killed_at_its_timeout() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "aside", ASIDE)
            blocks = attempt("a", "aside", {"block": 60}, timeout_s=0.3)
            fake.send(RunAttempts(1, [blocks]))
            ended = await fake.wait_for_end("a", within_s=5)
            assert ended.code == "timeout"

    play(scenario())


def test_a_death_beside_others_blames_nobody_and_one_alone() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "aside", ASIDE)
            fake.send(RunAttempts(1, side_by_side(a={"s": 60}, b={"s": 0.2, "how": "segv"})))
            for job in "ab":
                ended = await fake.wait_for_end(job)
                assert (ended.code, ended.executor_died, ended.is_blame_unknown) == (
                    "worker_crashed",
                    True,
                    True,
                )
            await load(fake, 2, "aside", ASIDE)
            fake.send(RunAttempts(2, side_by_side(c={"how": "segv"})))
            ended = await fake.wait_for_end("c")
            assert (ended.executor_died, ended.is_blame_unknown) == (True, False)

    play(scenario())


def test_one_slot_is_cancelled_by_its_coroutine() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            await load(fake, 1, "aside", ASIDE)
            fake.send(RunAttempts(1, side_by_side(a={"s": 60}, b={"s": 0.8})))
            await begun(fake, "a", "b")
            fake.send(CancelAttempt("a", 1, "cancelled", "by hand", 0.0))
            assert (await fake.wait_for_end("a")).message == "by hand"
            assert (await fake.wait_for_end("b")).code is None

    play(scenario())
