"""Effect: child processes are started, restarted and ended by their pool: real processes, short pauses."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Collection

import pytest

from runner.coordinator.processes.child_pool import ChildPool
from runner.coordinator.processes.local_process import LocalProcess, describe_exit
from runner.processes.child import Child, Role

SLEEPS = "import time; time.sleep(600)"
#: Ends at end of file on its lifeline, which is its standard input.
ENDS_WITH_LIFELINE = "import sys; sys.stdin.read()"


class ScriptedSlot:
    """Runs a Python program; its starts and exits are there to be awaited."""

    role: Role = "writer"

    def __init__(self, program: str, *, failing_starts: Collection[int] = ()) -> None:
        self.program = program
        #: Numbers of the starts, from 1, that raise OSError.
        self.failing_starts = failing_starts
        self.start_count = 0
        self.started: asyncio.Queue[LocalProcess] = asyncio.Queue()
        self.exited: asyncio.Queue[tuple[LocalProcess, int]] = asyncio.Queue()
        self.pauses: list[str] = []

    def start(self) -> LocalProcess:
        self.start_count += 1
        if self.start_count in self.failing_starts:
            raise OSError("no process is left")
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen([sys.executable, "-c", self.program], stdin=theirs.fileno())
        local = LocalProcess(Child(self.role, process, ours), started_mono=0.0, name=f"w{self.start_count}")
        self.started.put_nowait(local)
        return local

    def restart_pause_s(self, now_mono: float) -> float:
        self.pauses.append("restart")
        return 0.01

    def retry_pause_s(self, now_mono: float) -> float:
        self.pauses.append("retry")
        return 0.01

    def on_exit(self, process: LocalProcess, status: int) -> None:
        self.exited.put_nowait((process, status))


def run(slot: ScriptedSlot, body: Callable[[ChildPool], Awaitable[None]]) -> ChildPool:
    """Start the slot's process in a pool, run `body`, and end what is left."""

    async def play() -> ChildPool:
        pool = ChildPool()
        pool.start(slot)
        try:
            await asyncio.wait_for(body(pool), 20)
        finally:
            pool.stop_restarts()
            await pool.kill_and_wait(10)
        return pool

    return asyncio.run(play())


def test_a_process_that_ends_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    slot = ScriptedSlot(SLEEPS)

    async def body(pool: ChildPool) -> None:
        first = await slot.started.get()
        first.kill()
        second = await slot.started.get()
        assert await slot.exited.get() == (first, -signal.SIGKILL)
        assert second.pid != first.pid and second.child.reap() is None

    assert run(slot, body).lost_count == 1
    assert slot.pauses == ["restart"]
    assert [record.getMessage() for record in caplog.records] == [
        "writer w1 ended: signal SIGKILL; restart in 0.0 s"
    ]


def test_a_restart_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    slot = ScriptedSlot(SLEEPS, failing_starts={2, 3})

    async def body(pool: ChildPool) -> None:
        (await slot.started.get()).kill()
        await slot.started.get()

    run(slot, body)
    assert (slot.start_count, slot.pauses) == (4, ["restart", "retry", "retry"])
    assert caplog.records[-1].getMessage() == (
        "the writer could not be started: no process is left; retry in 0.0 s"
    )


def test_a_start_on_demand_does_not_cut_a_pause_short() -> None:
    slot = ScriptedSlot(SLEEPS)

    async def body(pool: ChildPool) -> None:
        (await slot.started.get()).kill()
        await slot.exited.get()
        pool.start(slot)
        assert slot.start_count == 1
        await slot.started.get()

    run(slot, body)
    assert slot.start_count == 2


def test_a_first_start_that_fails_is_the_callers_to_handle() -> None:
    slot = ScriptedSlot(SLEEPS, failing_starts={1})
    with pytest.raises(OSError, match="no process is left"):
        ChildPool().start(slot)


def test_a_slot_holds_one_process_at_a_time() -> None:
    slot = ScriptedSlot(SLEEPS)

    async def body(pool: ChildPool) -> None:
        pool.start(slot)

    run(slot, body)
    assert slot.start_count == 1


def test_a_pool_that_stops_replaces_and_starts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    slot = ScriptedSlot(SLEEPS)

    async def body(pool: ChildPool) -> None:
        pool.stop_restarts()
        assert not await pool.wait_all_exited(0.01)
        await pool.kill_and_wait(10)
        assert slot.exited.qsize() == 1
        pool.start(slot)
        assert await pool.wait_all_exited(10)

    assert run(slot, body).lost_count == 0
    assert (slot.start_count, slot.pauses, caplog.records) == (1, [], [])


def test_a_restart_that_is_due_is_not_made_by_a_pool_that_stops() -> None:
    slot = ScriptedSlot(SLEEPS)

    async def body(pool: ChildPool) -> None:
        (await slot.started.get()).kill()
        await slot.exited.get()
        pool.stop_restarts()
        # Timers that are due earlier run earlier: this one is behind the restart.
        fired = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, fired.set)
        await fired.wait()

    run(slot, body)
    assert slot.start_count == 1


def test_a_cut_lifeline_ends_a_process_that_watches_it() -> None:
    slot = ScriptedSlot(ENDS_WITH_LIFELINE)

    async def body(pool: ChildPool) -> None:
        pool.stop_restarts()
        pool.cut_lifelines()
        assert await pool.wait_all_exited(10)
        assert (await slot.exited.get())[1] == 0

    run(slot, body)


def test_exits_are_described_in_words() -> None:
    described = [describe_exit(status) for status in (0, 3, -9, -15)]
    assert described == ["exit code 0", "exit code 3", "signal SIGKILL", "signal SIGTERM"]
