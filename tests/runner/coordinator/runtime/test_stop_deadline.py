"""Parts of a stop share its time, which a second signal shortens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from runner.coordinator.runtime.stop_deadline import HURRIED_S, PART_MIN_S, StopDeadline


def play(body: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(body(asyncio.Event()), 10)

    asyncio.run(main())


async def forever() -> None:
    await asyncio.Event().wait()


async def failing() -> None:
    raise OSError("no")


def test_a_part_that_ends_in_time_is_waited_for() -> None:
    async def body(hurry: asyncio.Event) -> None:
        deadline, done = StopDeadline(5.0, hurry), list[int]()

        async def part() -> None:
            await asyncio.sleep(0)
            done.append(1)

        assert await deadline.wait(part()) and done == [1]
        with pytest.raises(OSError, match="no"):
            await deadline.wait(failing())

    play(body)


def test_a_part_that_takes_too_long_is_cancelled_and_the_next_one_has_a_little_time() -> None:
    async def body(hurry: asyncio.Event) -> None:
        deadline = StopDeadline(0.05, hurry)
        assert not await deadline.wait(forever())
        assert deadline.remaining_s() == PART_MIN_S

    play(body)


def test_a_second_signal_shortens_a_part_under_way() -> None:
    async def body(hurry: asyncio.Event) -> None:
        deadline = StopDeadline(3_600.0, hurry)
        asyncio.get_running_loop().call_later(0.01, hurry.set)
        assert not await deadline.wait(forever())
        assert deadline.remaining_s() <= HURRIED_S

    play(body)
