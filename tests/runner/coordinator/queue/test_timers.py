"""Things that happen at a later moment."""

from __future__ import annotations

import asyncio
import time

from runner.coordinator.queue.timers import Timers


class MonotonicClock:
    """The time since the machine started, and the time that it is said to have slept."""

    def __init__(self) -> None:
        self.slept_s = 0.0

    def now(self) -> float:
        return time.monotonic() + self.slept_s

    def now_mono(self) -> float:
        return time.monotonic()

    def from_wall_time(self, wall: float) -> float:
        return wall


def test_calls_come_in_order_of_their_moments() -> None:
    called: list[str] = []

    async def main() -> None:
        timers = Timers(MonotonicClock())
        done = asyncio.Event()
        now = time.monotonic()
        timers.call_at(now + 0.02, done.set)
        timers.call_at(now + 0.01, lambda: called.append("second"))
        timers.call_at(now - 5, lambda: called.append("first"))
        await asyncio.wait_for(done.wait(), 2)
        timers.close()

    asyncio.run(main())
    assert called == ["first", "second"]


def test_a_machine_that_slept_does_not_come_late_by_its_sleep() -> None:
    """The loop's clock stands still in a sleep; what is due after it is not put off by as much."""
    called: list[str] = []

    async def main() -> None:
        clock = MonotonicClock()
        timers = Timers(clock, check_interval_s=0.02)
        woken = asyncio.Event()
        timers.call_at(time.monotonic() + 3_600, woken.set)
        timers.call_at(time.monotonic() + 7_200, lambda: called.append("too early"))
        clock.slept_s = 3_600.0
        await asyncio.wait_for(woken.wait(), 2)
        timers.close()

    asyncio.run(main())
    assert called == []


def test_many_that_are_due_at_once_leave_the_loop_its_turns() -> None:
    turns = 0
    called = 0

    async def main() -> None:
        nonlocal turns, called
        timers = Timers(MonotonicClock())
        done = asyncio.Event()

        def call() -> None:
            nonlocal called
            called += 1
            if called == 5_000:
                done.set()

        for _ in range(5_000):
            timers.call_at(0.0, call)
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    asyncio.run(main())
    assert called == 5_000
    assert turns >= 5


def test_a_failing_call_does_not_stop_the_others() -> None:
    async def main() -> None:
        timers = Timers(MonotonicClock())
        done = asyncio.Event()
        timers.call_at(0.0, lambda: done.missing())  # type: ignore[attr-defined]
        timers.call_at(1.0, done.set)
        await asyncio.wait_for(done.wait(), 2)
        timers.call_at(time.monotonic() + 0.01, done.clear)
        while done.is_set():
            await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(main(), 5))
