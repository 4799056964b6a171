"""Timeouts, cancels, recalls and memory, with a real worker and real executors."""

from __future__ import annotations

import asyncio
import time

import pytest

from runner.protocol.worker import (
    AttemptsRecalled,
    AttemptStarted,
    CancelAttempt,
    ExecutorGone,
    ExecutorLoaded,
    ExecutorUsage,
    KillExecutor,
    OverGrant,
    RecallAttempts,
    RunAttempts,
    SetGrant,
)
from tests.runner.worker.fake_coordinator import StubCoordinator, attempt

MIB = 1024 * 1024


@pytest.mark.timed
def test_polite_handler_leaves_its_executor_usable() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "polite", attempt("a", "polite", {}))
            await fake.wait_for(AttemptStarted, job_id="a")
            began = time.monotonic()
            fake.send(CancelAttempt("a", 1, "cancelled", "enough"))
            ended = await fake.wait_for_end("a")
            assert time.monotonic() - began < 0.3
            assert (ended.code, ended.message, ended.retryable) == ("cancelled", "enough", False)
            fake.send(RunAttempts(1, [attempt("b", "polite", {}, timeout_s=0.1)]))
            assert (await fake.wait_for_end("b")).code == "timeout"
            assert not fake.messages_of(ExecutorGone)

    asyncio.run(scenario())


@pytest.mark.timed
@pytest.mark.parametrize("how", ["descriptor", "memory"])
def test_a_handler_that_writes_over_the_shared_page_keeps_its_timeout(how: str) -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "linger", attempt("mate", "linger", {"s": 2.5}))
            fake.load(2, "scribble", attempt("a", "scribble", {"how": how, "s": 0}))
            assert (await fake.wait_for_end("a")).output == b'"scribbled"'
            fake.send(RunAttempts(2, [attempt("b", "scribble", {"how": how, "s": 30}, timeout_s=0.3)]))
            began = time.monotonic()
            assert (await fake.wait_for_end("b")).code == "timeout"
            assert time.monotonic() - began < 1.5
            fake.load(3, "scribble", attempt("c", "scribble", {"how": how, "s": 30}))
            await fake.wait_for(AttemptStarted, job_id="c")
            began = time.monotonic()
            fake.send(CancelAttempt("c", 1, "cancelled", "now", grace_s=-1.0))
            assert (await fake.wait_for_end("c")).code == "cancelled"
            assert time.monotonic() - began < 1.0
            assert (await fake.wait_for_end("mate")).output == b'"rested"'
            assert len(fake.hellos) == 1

    asyncio.run(scenario())


@pytest.mark.timed
@pytest.mark.parametrize(
    ("handler", "data", "least_s", "most_s"),
    [
        ("linger", {"s": 30}, 0.4, 1.2),
        ("termable", {}, 0.9, 1.7),
        ("stubborn", {}, 1.4, 2.2),
        ("gil", {"n": 10**11}, 0.9, 2.2),
    ],
)
def test_ladder_ends_what_does_not_listen(handler: str, data: object, least_s: float, most_s: float) -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, handler, attempt("a", handler, data, timeout_s=0.3))
            started = await fake.wait_for(AttemptStarted, job_id="a")
            ended = await fake.wait_for_end("a")
            elapsed_s = time.time() - started.at - 0.3
            assert (ended.code, ended.executor_died) == ("timeout", False)
            assert least_s < elapsed_s < most_s
            await fake.wait_for(ExecutorGone, code="timeout", within_s=3)

    asyncio.run(scenario())


def test_handler_that_holds_the_gil_within_its_timeout_succeeds() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "gil", attempt("a", "gil", {"n": 10**8}, timeout_s=20))
            assert (await fake.wait_for_end("a", within_s=20)).code is None

    asyncio.run(scenario())


def test_grace_stretches_a_cancel() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "linger", attempt("a", "linger", {"s": 1.5}))
            await fake.wait_for(AttemptStarted, job_id="a")
            fake.send(CancelAttempt("a", 1, "cancelled", "later", grace_s=10))
            ended = await fake.wait_for_end("a")
            assert (ended.code, ended.output) == ("cancelled", None)
            assert ended.run_s is not None and ended.run_s > 1.4
            fake.send(RunAttempts(1, [attempt("b", "linger", {"s": 0})]))
            assert (await fake.wait_for_end("b")).code is None

    asyncio.run(scenario())


def test_second_cancel_makes_haste() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "linger", attempt("a", "linger", {"s": 30}))
            await fake.wait_for(AttemptStarted, job_id="a")
            fake.send(CancelAttempt("a", 1, "cancelled", "first", grace_s=20))
            fake.send(CancelAttempt("a", 1, "cancelled", "second"))
            ended = await fake.wait_for_end("a", within_s=2)
            assert (ended.code, ended.message) == ("cancelled", "first")

    asyncio.run(scenario())


def test_silence_is_a_stall() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "linger", attempt("a", "linger", {"s": 30}, stall_timeout_s=0.3))
            ended = await fake.wait_for_end("a", within_s=3)
            assert ended.code == "stalled"
            fake.load(2, "polite", attempt("b", "polite", {}, stall_timeout_s=0.4, timeout_s=1.5))
            assert (await fake.wait_for_end("b", within_s=5)).code == "timeout"

    asyncio.run(scenario())


def test_clock_of_a_staged_attempt_begins_at_its_own_start() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            line = [attempt(f"{n}", "linger", {"s": 0.4}, timeout_s=0.6) for n in range(3)]
            fake.load(1, "linger", *line)
            assert [(await fake.wait_for_end(f"{n}")).code for n in range(3)] == [None, None, None]
            fake.send(
                RunAttempts(
                    1, [attempt("x", "linger", {"s": 0}), attempt("y", "linger", {"s": 9}, timeout_s=0.2)]
                )
            )
            assert (await fake.wait_for_end("x")).code is None
            assert (await fake.wait_for_end("y")).code == "timeout"

    asyncio.run(scenario())


def test_recall_gives_back_what_did_not_start() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "linger", *(attempt(f"{n}", "linger", {"s": 0.5}) for n in range(4)))
            await fake.wait_for(AttemptStarted, job_id="0")
            fake.send(RecallAttempts(1))
            assert (await fake.wait_for(AttemptsRecalled)).attempts == [("1", 1), ("2", 1), ("3", 1)]
            fake.send(RunAttempts(1, [attempt("5", "linger", {"s": 9}, timeout_s=0.2)]))
            assert (await fake.wait_for_end("0")).code is None
            assert (await fake.wait_for_end("5")).code == "timeout"

    asyncio.run(scenario())


def test_cancel_of_a_staged_attempt_leaves_the_others_in_order() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "linger", *(attempt(f"{n}", "linger", {"s": 0.2}) for n in range(4)))
            await fake.wait_for(AttemptStarted, job_id="0")
            fake.send(CancelAttempt("2", 1, "cancelled", "no"))
            ended = await fake.wait_for_end("2")
            # Its executor goes on: the coordinator must not take it for one that leaves.
            assert (ended.code, ended.run_s, ended.executor_closing) == ("cancelled", None, False)
            order = [(await fake.wait_for_end(job)) for job in ("0", "1", "3")]
            assert [end.code for end in order] == [None, None, None]
            starts = [end.started_at or 0.0 for end in order]
            assert starts == sorted(starts)
            assert not fake.messages_of(AttemptsRecalled)

    asyncio.run(scenario())


def test_memory_over_the_cap_is_ended() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            big = attempt("a", "hog", {"bytes": 200 * MIB})
            fake.load(1, "hog", big, ram_cap_bytes=120 * MIB)
            ended = await fake.wait_for_end("a", within_s=3)
            assert (ended.code, ended.executor_died) == ("memory_exceeded", False)
            assert ended.detail["used_bytes"] > 120 * MIB
            assert ended.peak_bytes is not None and ended.peak_bytes > 120 * MIB
            await fake.wait_for(ExecutorGone, code="memory_exceeded")

    asyncio.run(scenario())


def test_peak_and_usage_are_told() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "hog", attempt("a", "hog", {"bytes": 100 * MIB, "s": 1.2}))
            ended = await fake.wait_for_end("a")
            assert ended.peak_bytes is not None and ended.peak_bytes > 100 * MIB
            assert any(
                used > 100 * MIB for each in fake.messages_of(ExecutorUsage) for _, used in each.executors
            )

    asyncio.run(scenario())


def test_simulated_bytes_over_the_grant_are_asked_for() -> None:
    async def scenario() -> None:
        async with StubCoordinator(device_kind="sim") as fake:
            fake.load(1, "simulate", attempt("a", "simulate", {"bytes": 5 * MIB}), grant_bytes=10 * MIB)
            ended = await fake.wait_for_end("a")
            assert (ended.code, ended.peak_bytes) == (None, 5 * MIB)
            fake.send(RunAttempts(1, [attempt("b", "simulate", {"bytes": 11 * MIB, "s": 5})]))
            assert (await fake.wait_for(OverGrant)).used_bytes == 11 * MIB
            # Nobody answers: it goes on, and is asked for again.
            await fake.until(lambda: len(fake.messages_of(OverGrant)) >= 3)
            detail = {"used_bytes": 11 * MIB}
            fake.send(KillExecutor(1, "memory_exceeded", "too much", detail, only_if_idle=False))
            ended = await fake.wait_for_end("b")
            assert (ended.code, ended.detail, ended.executor_died) == ("memory_exceeded", detail, False)

    asyncio.run(scenario())


def test_a_larger_grant_is_known_to_the_handler_and_ends_the_questions() -> None:
    async def scenario() -> None:
        async with StubCoordinator(device_kind="sim") as fake:
            job = attempt("a", "simulate", {"bytes": 11 * MIB, "s": 1})
            fake.load(1, "simulate", job, grant_bytes=10 * MIB)
            await fake.wait_for(OverGrant)
            fake.send(SetGrant(1, 12 * MIB))
            assert (await fake.wait_for_end("a")).code is None
            asked = len(fake.messages_of(OverGrant))
            assert asked <= 2
            fake.send(RunAttempts(1, [attempt("b", "simulate", {"bytes": 12 * MIB, "s": 0.6})]))
            assert (await fake.wait_for_end("b")).output == b'"12 MiB"'
            assert len(fake.messages_of(OverGrant)) == asked

    asyncio.run(scenario())


def test_a_grant_of_ram_is_asked_for_and_a_cap_is_not() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            job = attempt("a", "hog", {"bytes": 100 * MIB, "s": 0.6})
            fake.load(1, "hog", job, grant_bytes=80 * MIB)
            assert (await fake.wait_for(OverGrant)).used_bytes > 80 * MIB
            assert (await fake.wait_for_end("a")).code is None
            fake.load(2, "hog", attempt("b", "hog", {"bytes": 100 * MIB}), ram_cap_bytes=80 * MIB)
            assert (await fake.wait_for_end("b")).code == "memory_exceeded"
            assert not fake.messages_of(OverGrant, executor=2)

    asyncio.run(scenario())


def test_output_of_c_code_comes_before_the_end() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            jobs = [f"{n}" for n in range(30)]
            fake.load(1, "speak", *(attempt(job, "speak", {"raw": f"raw {job}"}) for job in jobs))
            for job in jobs:
                ended = await fake.wait_for_end(job)
                texts = [data["text"] for kind, data in fake.events_of(job) if kind == "log"]
                assert sorted(texts) == sorted([f"raw {job}", "warned", "from python"])
                notes = [
                    each.seq
                    for each in fake.seen
                    if getattr(each, "job_id", "") == job and hasattr(each, "seq")
                ]
                assert notes == list(range(1, len(notes) + 1)) and notes[-1] == ended.seq

    asyncio.run(scenario())


def test_flood_on_a_descriptor_is_bounded() -> None:
    async def scenario() -> None:
        async with StubCoordinator(log_max_bytes=100_000) as fake:
            fake.load(1, "speak", attempt("a", "speak", {"raw": "y" * 900_000}))
            assert (await fake.wait_for_end("a")).code is None
            texts = [data["text"] for kind, data in fake.events_of("a") if kind == "log"]
            assert sum(map(len, texts)) < 120_000
            assert max(map(len, texts)) <= 8 * 1024
            await fake.wait_for(ExecutorLoaded)

    asyncio.run(scenario())
