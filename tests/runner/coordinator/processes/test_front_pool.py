"""Which silent front is killed: real processes, pulses by hand."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from runner.coordinator.processes.front_pool import (
    BUSY_PINGS_MAX,
    LATE_PINGS_MAX,
    SILENT_PINGS_MAX,
    FrontHandle,
)
from runner.coordinator.processes.local_process import LocalProcess
from runner.processes.child import Child
from runner.protocol.framing import pack, with_length
from runner.protocol.front import Pong, ToCoordinator, encode

#: A process that has used so much is at work, as far as can be told of 8 pulses.
AT_WORK_S = 0.6


class Deaf:
    """Listens to nothing."""

    def on_front_connected(self, front: FrontHandle) -> None: ...

    def on_request(self, front: FrontHandle, request: ToCoordinator) -> None: ...

    def on_front_lost(self, front: FrontHandle) -> None: ...


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[Child]:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen([sys.executable, "-c", request.param])
    child = Child("front", process, ours)
    yield child
    process.kill()
    process.wait()
    child.close()
    theirs.close()


IDLE = pytest.mark.parametrize("child", ["import time; time.sleep(600)"], indirect=True)
BUSY = pytest.mark.parametrize("child", ["while True: pass"], indirect=True)


def pulses(front: FrontHandle, count: int) -> None:
    async def run() -> None:
        for _ in range(count):
            front.ping()

    asyncio.run(run())


def front_of(child: Child) -> FrontHandle:
    front = FrontHandle(LocalProcess(child, started_mono=0.0), Deaf())
    front.is_ready = True
    return front


def used_s(pid: int) -> float:
    """What another process has used: its clock has the process id in its upper bits, inverted."""
    return time.clock_gettime((~pid << 3) | 2)


def wait_for_work(child: Child) -> None:
    deadline = time.monotonic() + 20
    while used_s(child.pid) < AT_WORK_S:
        assert time.monotonic() < deadline, "the process got no core"


def lives_on(child: Child) -> bool:
    """Whether it is left alone: who is killed is gone at once."""
    try:
        child.process.wait(0.5)
    except subprocess.TimeoutExpired:
        return True
    return False


@IDLE
def test_a_silent_front_that_does_nothing_is_killed(child: Child) -> None:
    front = front_of(child)
    pulses(front, SILENT_PINGS_MAX)
    assert lives_on(child) and not front.is_answering
    pulses(front, 1)
    assert child.process.wait(5) == -signal.SIGKILL


@BUSY
def test_a_silent_front_that_works_is_given_longer(child: Child) -> None:
    front = front_of(child)
    pulses(front, 1)
    wait_for_work(child)
    pulses(front, SILENT_PINGS_MAX)
    assert lives_on(child)
    pulses(front, BUSY_PINGS_MAX - SILENT_PINGS_MAX)
    assert child.process.wait(5) == -signal.SIGKILL


@IDLE
def test_a_front_that_has_not_said_hello_is_given_longer(child: Child) -> None:
    front = FrontHandle(LocalProcess(child, started_mono=0.0), Deaf())
    pulses(front, BUSY_PINGS_MAX)
    assert lives_on(child)
    pulses(front, 1)
    assert child.process.wait(5) == -signal.SIGKILL


@IDLE
def test_a_sign_of_life_makes_up_for_all_that_was_owed(child: Child) -> None:
    front = front_of(child)
    for _ in range(3):
        pulses(front, SILENT_PINGS_MAX)
        front.data_received(with_length(pack([encode(Pong())])))
        assert front.is_answering
    pulses(front, LATE_PINGS_MAX)
    assert front.is_answering
    pulses(front, 1)
    assert not front.is_answering and lives_on(child)
