"""Tasks nobody awaits: they run to their end, and a shutdown ends those that have not."""

from __future__ import annotations

import asyncio

import pytest

from runner.coordinator.runtime.background_tasks import BackgroundTasks


def test_a_started_task_runs_and_is_released_at_its_end() -> None:
    async def body() -> None:
        tasks, done = BackgroundTasks(), asyncio.Event()

        async def work() -> None:
            done.set()

        task = tasks.start(work())
        await done.wait()
        await task
        # Callbacks of a task that has ended run in the next turn of the loop.
        await asyncio.sleep(0)
        assert tasks._running == set()

    asyncio.run(body())


def test_cancel_all_waits_for_the_end_of_every_task() -> None:
    async def body() -> None:
        tasks = BackgroundTasks()
        cleaned_up = 0

        async def work() -> None:
            nonlocal cleaned_up
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                cleaned_up += 1

        for _ in range(3):
            tasks.start(work())
        await asyncio.sleep(0)
        await tasks.cancel_all()
        assert cleaned_up == 3

    asyncio.run(body())


def test_a_supervised_task_that_fails_is_started_again_until_it_is_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> None:
        tasks, done, starts = BackgroundTasks(), asyncio.Event(), 0

        async def work() -> None:
            nonlocal starts
            starts += 1
            if starts < 4:
                raise OSError("Too many open files")
            done.set()

        tasks.start_supervised("index of files", work, pauses_s=(0.001, 0.002))
        await asyncio.wait_for(done.wait(), 10)
        await asyncio.sleep(0)
        assert starts == 4
        await tasks.cancel_all()

    asyncio.run(body())
    assert [record.getMessage() for record in caplog.records] == [
        f"the background task 'index of files' failed; it starts again in {pause_s} s"
        for pause_s in ("0.001", "0.002", "0.002")
    ]
