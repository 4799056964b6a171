"""Every way in which an executor can die or be ended, with a real worker and real executors."""

from __future__ import annotations

import asyncio
import time

import pytest

from runner.processes import orphans
from runner.protocol.worker import (
    AttemptEnded,
    AttemptsRecalled,
    AttemptStarted,
    CancelAttempt,
    ExecutorGone,
    ExecutorLoaded,
    KillExecutor,
    RunAttempts,
    Stop,
    UnloadExecutor,
)
from tests.runner.worker.fake_coordinator import StubCoordinator, attempt

DEATHS = [
    ({"how": "segv"}, "SIGSEGV", None),
    ({"how": "SIGKILL"}, "SIGKILL", None),
    ({"how": "SIGABRT"}, "SIGABRT", None),
    ({"how": "exit", "code": 0}, None, 0),
    ({"how": "exit", "code": 3}, None, 3),
    ({"how": "sys.exit", "code": 4}, None, 4),
]


@pytest.mark.timed
@pytest.mark.parametrize(("data", "signal_name", "exit_code"), DEATHS)
def test_death_is_told_with_its_cause(
    data: dict[str, object], signal_name: str | None, exit_code: int | None
) -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "die", attempt("a", "die", data), attempt("b", "die", data))
            await fake.wait_for(ExecutorLoaded)
            began = time.monotonic()
            ended = await fake.wait_for_end("a")
            assert time.monotonic() - began < 0.5
            assert (ended.code, ended.executor_died) == ("worker_crashed", True)
            assert (ended.detail["signal"], ended.detail["exit_code"]) == (signal_name, exit_code)
            assert "printed by a\nlast words" in ended.detail["stderr_tail"]
            assert ended.detail["oom_kill"] is False
            gone = await fake.wait_for(ExecutorGone)
            assert gone.not_started == [("b", 1)]
            assert fake.seen.index(ended) < fake.seen.index(gone)

    asyncio.run(scenario())


def test_results_made_before_a_death_are_not_lost_with_it() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "die", attempt("a", "die", {"how": "live"}))
            await fake.wait_for_end("a")
            line = [attempt(name, "die", {"how": "live"}) for name in ("b", "c", "d")]
            fake.send(RunAttempts(1, [*line, attempt("e", "die", {"how": "segv"})]))
            assert (await fake.wait_for_end("e")).executor_died
            ends = [await fake.wait_for_end(name) for name in ("b", "c", "d")]
            assert [(end.code, end.output) for end in ends] == [(None, b'"alive"')] * 3

    asyncio.run(scenario())


def test_last_words_are_those_of_the_dead_attempt() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "die", attempt("a", "die", {"how": "live"}))
            await fake.wait_for_end("a")
            fake.send(RunAttempts(1, [attempt("b", "die", {"how": "SIGKILL"})]))
            ended = await fake.wait_for_end("b")
            assert ended.detail["stderr_tail"] == "printed by b\nlast words\n"

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["exec", "close"])
def test_lost_channel_is_a_crash(how: str) -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "die", attempt("a", "die", {"how": how}))
            ended = await fake.wait_for_end("a")
            assert (ended.code, ended.executor_died) == ("worker_crashed", True)
            await fake.wait_for(ExecutorGone, code="worker_crashed")

    asyncio.run(scenario())


def test_neighbour_does_not_notice() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "linger", attempt("calm", "linger", {"s": 0.8}))
            await fake.wait_for(AttemptStarted, job_id="calm")
            fake.load(2, "die", attempt("a", "die", {"how": "segv"}))
            await fake.wait_for(ExecutorGone, executor=2)
            assert (await fake.wait_for_end("calm")).code is None

    asyncio.run(scenario())


def test_dead_load_blames_the_first_attempt() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "dying_load", attempt("a"), attempt("b"))
            ended = await fake.wait_for_end("a")
            assert (ended.code, ended.executor_died, ended.run_s) == ("worker_crashed", True, None)
            assert ended.load_s is not None
            assert (await fake.wait_for(ExecutorGone)).not_started == [("b", 1)]

    asyncio.run(scenario())


def test_failed_load_is_told_with_its_trace() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "bad_load", attempt("a"))
            ended = await fake.wait_for_end("a")
            assert (ended.code, ended.executor_died) == ("load_error", False)
            assert "no weights" in ended.message
            await fake.wait_for(ExecutorGone, code="load_error")

    asyncio.run(scenario())


def test_executor_that_cannot_be_started_is_gone() -> None:
    async def scenario() -> None:
        async with StubCoordinator(executor_env={"TOO_LONG": "x" * 3_000_000}) as fake:
            fake.load(1, "echo", attempt("a"), attempt("b"))
            ended = await fake.wait_for_end("a")
            assert (ended.code, ended.executor_died) == ("worker_crashed", False)
            assert (await fake.wait_for(ExecutorGone)).not_started == [("b", 1)]
            fake.send(RunAttempts(1, [attempt("late")]))
            assert (await fake.wait_for(AttemptsRecalled)).attempts == [("late", 1)]

    asyncio.run(scenario())


def test_own_sessions_of_an_executor_end_with_it() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "brood", attempt("a", "brood", {"s": 60}))
            await fake.until(lambda: fake.events_of("a"))
            pids = next(data["chunk"] for kind, data in fake.events_of("a") if kind == "output")
            await fake.until(lambda: orphans.find_marked(f"{fake.name}/1"))
            fake.send(CancelAttempt("a", 1, "memory_exceeded", "too much", grace_s=-1))
            assert (await fake.wait_for_end("a")).code == "memory_exceeded"
            await fake.wait_for(ExecutorGone, code="memory_exceeded", within_s=2)
            assert not [pid for pid in pids if _lives(pid)]

    asyncio.run(scenario())


def test_warm_executor_keeps_its_children() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "brood", attempt("a", "brood", {}))
            ended = await fake.wait_for_end("a")
            assert ended.output is not None
            pids = [int(pid) for pid in ended.output.decode().strip("[]").split(",")]
            assert all(_lives(pid) for pid in pids[:2])
            fake.send(UnloadExecutor(1))
            assert (await fake.wait_for(ExecutorGone)).code == "unloaded"
            assert not [pid for pid in pids if _lives(pid)]

    asyncio.run(scenario())


def test_stop_interrupts_and_exits() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "polite", attempt("a", "polite", {}), attempt("b", "polite", {}))
            fake.load(2, "echo", attempt("c", data=1))
            await fake.wait_for(AttemptStarted, job_id="a")
            await fake.wait_for_end("c")
            fake.send(Stop())
            assert (await fake.wait_for_end("a")).code == "interrupted"
            given_back = [key for each in fake.messages_of(AttemptsRecalled) for key in each.attempts]
            await fake.until(lambda: len(fake.messages_of(ExecutorGone)) == 2)
            given_back += [key for each in fake.messages_of(ExecutorGone) for key in each.not_started]
            assert given_back == [("b", 1)]
            await fake.until(lambda: fake.worker.reap() is not None, within_s=3)
            assert fake.worker.reap() == 0
            assert not list(fake.folder.glob("*.spool"))

    asyncio.run(scenario())


def test_cancel_while_loading_kills() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "slow_load", attempt("a"))
            await fake.until(lambda: orphans.find_marked(f"{fake.name}/1"))
            fake.send(CancelAttempt("a", 1, "cancelled", "not wanted"))
            ended = await fake.wait_for_end("a", within_s=2)
            assert (ended.code, ended.message, ended.executor_died) == ("cancelled", "not wanted", False)
            await fake.wait_for(ExecutorGone, code="cancelled")

    asyncio.run(scenario())


def test_a_kill_of_what_loads_spares_what_has_begun() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "brood", attempt("a", "brood", {"s": 1}))
            fake.load(2, "slow_load", attempt("b", "slow_load"))
            await fake.until(lambda: fake.events_of("a"))
            await fake.until(lambda: orphans.find_marked(f"{fake.name}/2"))
            fake.send(*(KillExecutor(executor, "interrupted", "reloaded") for executor in (1, 2)))
            assert (await fake.wait_for_end("b", within_s=2)).code == "interrupted"
            assert (await fake.wait_for_end("a")).code is None

    asyncio.run(scenario())


def test_load_timeout() -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "slow_load", attempt("a"), load_timeout_s=0.5)
            ended = await fake.wait_for_end("a", within_s=2)
            assert (ended.code, ended.executor_died) == ("load_timeout", False)
            await fake.wait_for(ExecutorGone, code="load_timeout")
            assert not fake.messages_of(AttemptEnded, code=None)

    asyncio.run(scenario())


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
