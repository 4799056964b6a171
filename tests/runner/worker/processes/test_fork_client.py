"""An executor that is forked of a template is as one that was started, in all that shows and in its ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from runner.processes.orphans import marker_of
from runner.protocol.worker import AttemptEnded, ExecutorGone, LoadExecutor, RunAttempts
from runner.worker.processes import process_tree
from tests.runner.worker.fake_coordinator import StubCoordinator, attempt, spec

# What holds for executors holds for forked ones: these run once more below, with a template.
from tests.runner.worker.test_executor_deaths import (  # noqa: F401
    test_death_is_told_with_its_cause,
    test_results_made_before_a_death_are_not_lost_with_it,
)

HEAVY = "tests.runner.worker.slow_import"


@pytest.fixture(autouse=True)
def template(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every worker of these tests has one."""
    monkeypatch.setattr(StubCoordinator, "template", [HEAVY, "numpy"])
    yield


def template_pid(fake: StubCoordinator) -> int | None:
    """The worker's template, if it lives."""
    for pid in process_tree.child_pids(fake.worker.pid):
        if (marker_of(pid) or "").startswith(f"{fake.name}/template."):
            return pid
    return None


def is_over(pid: int) -> bool:
    """Whether a process has ended."""
    found = process_tree.read_process(pid)
    return found is None or found.state == "Z"


async def run(fake: StubCoordinator, executor: int, handler: str, data: Any = None, **env: str) -> Any:
    """The output of a job at an executor of its own."""
    job = f"job-{executor}"
    order = LoadExecutor(executor, spec(handler), ["cpu"], env, "cpu")
    fake.send(order, RunAttempts(executor, [attempt(job, handler, data)]))
    ended = await fake.wait_for_end(job)
    assert ended.code is None, ended
    return json.loads(ended.output or b"null")


async def forked(fake: StubCoordinator, executor: int = 1) -> list[Any]:
    """What a forked executor has drawn; the first ones may come before the template's word has."""
    for number in range(executor, executor + 20):
        found = await run(fake, number, "drawn")
        if found[2] != found[3]:
            return list(found)
    raise AssertionError("none was forked")


def play(scenario: Any, **config: Any) -> None:
    async def whole() -> None:
        async with StubCoordinator(**config) as fake:
            await scenario(fake)

    asyncio.run(whole())


def test_a_forked_executor_is_in_all_as_one_that_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(fake: StubCoordinator) -> dict[str, Any]:
        if StubCoordinator.template:
            await forked(fake, 100)
        found: dict[str, Any] = await run(fake, 1, "circumstances")
        assert found.pop("parent") == fake.worker.pid
        return found

    async def both() -> None:
        async with StubCoordinator() as fake:
            by_fork = await scenario(fake)
        monkeypatch.setattr(StubCoordinator, "template", [])
        async with StubCoordinator() as fake:
            by_start = await scenario(fake)
        # A template maps its executors' numbers of descriptors anew.
        assert sorted(by_fork.pop("fds").values()) == sorted(by_start.pop("fds").values())
        assert by_fork == by_start

    asyncio.run(both())


def test_forked_executors_share_an_import_and_draw_each_for_itself() -> None:
    async def scenario(fake: StubCoordinator) -> None:
        first, second = await forked(fake, 1), await forked(fake, 50)
        assert first[3] == second[3] == template_pid(fake)
        assert first[2] != second[2]
        assert first[0] != second[0] and first[1] != second[1]

    play(scenario)


def test_a_forked_executor_and_what_it_starts_carry_its_own_marker() -> None:
    async def scenario(fake: StubCoordinator) -> None:
        pid = (await forked(fake, 100))[2]
        assert re.fullmatch(f"{fake.name}/1[0-9][0-9]", marker_of(pid) or "")
        fake.load(1, "brood", attempt("a", "brood", {"s": 30}))

        def marked() -> list[int]:
            return [
                each
                for each in process_tree.descendant_pids(fake.worker.pid)
                if marker_of(each) == f"{fake.name}/1"
            ]

        # Itself, two programs that it starts, and a fork.
        assert len(await fake.until(lambda: len(found := marked()) == 4 and found)) == 4

    play(scenario)


def test_all_that_a_forked_executor_started_goes_with_it_and_the_template_stays() -> None:
    async def scenario(fake: StubCoordinator) -> None:
        await forked(fake, 100)
        before = template_pid(fake)
        fake.load(1, "brood", attempt("a", "brood", {}))
        pids = json.loads((await fake.wait_for_end("a")).output or b"[]")
        # The last executor: who belongs to nobody else was its child.
        ours = {each: marker_of(each) or "" for each in process_tree.child_pids(fake.worker.pid)}
        executors = [pid for pid, marker in ours.items() if re.fullmatch(f"{fake.name}/[0-9]+", marker)]
        for pid in executors:
            os.kill(pid, signal.SIGKILL)
        await fake.wait_for(ExecutorGone, executor=1)
        await fake.until(lambda: all(is_over(pid) for pid in [*executors, *pids]))
        assert template_pid(fake) == before
        assert (await forked(fake, 200))[3] == before

    play(scenario)


def test_without_its_template_a_worker_starts_executors_itself() -> None:
    async def scenario(fake: StubCoordinator) -> None:
        await forked(fake)
        pid = template_pid(fake)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        found = await run(fake, 100, "drawn")
        assert found[2] == found[3]
        assert template_pid(fake) is None

    play(scenario)


@pytest.mark.parametrize("module", ["tests.runner.worker.threaded_import", "no_such_module"])
def test_a_template_that_is_not_fit_forks_nothing(
    module: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(StubCoordinator, "template", [HEAVY, module])

    async def scenario() -> None:
        fake = StubCoordinator()
        # It may never say that it is ready.
        (fake.folder / "template").touch()
        async with fake:
            await fake.until(lambda: template_pid(fake) is None)
            found = await run(fake, 1, "drawn")
            assert found[2] == found[3]

    asyncio.run(scenario())
    told = capfd.readouterr().err
    assert ("threads" in told) if module.endswith("threaded_import") else ("no_such_module" in told), told


def test_an_executor_with_another_environment_is_started() -> None:
    async def scenario(fake: StubCoordinator) -> None:
        await forked(fake)
        found = await run(fake, 100, "drawn", CUDA_VISIBLE_DEVICES="GPU-other")
        assert found[2] == found[3]

    play(scenario)


def test_the_template_and_what_was_forked_end_with_the_worker() -> None:
    async def scenario(fake: StubCoordinator) -> None:
        pids = [(await forked(fake))[2], template_pid(fake)]
        os.kill(fake.worker.pid, signal.SIGKILL)
        await fake.until(lambda: all(pid is None or is_over(pid) for pid in pids))

    play(scenario)


def test_a_cancelled_job_of_a_forked_executor_ends_by_the_ladder() -> None:
    async def scenario(fake: StubCoordinator) -> None:
        await forked(fake, 100)
        fake.load(1, "linger", attempt("a", "linger", {"s": 60}, timeout_s=0.3))
        ended: AttemptEnded = await fake.wait_for_end("a", within_s=5)
        assert (ended.code, ended.executor_died) == ("timeout", False)

    play(scenario)
