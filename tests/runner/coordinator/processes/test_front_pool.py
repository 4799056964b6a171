"""Which silent front is killed: real processes, pulses by hand."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import cast

import pytest

from api.coordinator.client import CoordinatorClient, CoordinatorReply
from runner.coordinator.processes.front_pool import UNREAD_MAX_BYTES, FrontHandle
from runner.coordinator.processes.local_process import LocalProcess
from runner.processes.child import Child
from runner.processes.pulse import BUSY_PINGS_MAX, LATE_PINGS_MAX, SILENT_PINGS_MAX
from runner.protocol.framing import FRAME_BYTES, LENGTH, pack, unpack, with_length
from runner.protocol.front import GetJob, Pong, Reply, ToCoordinator, encode, to_front_decoder
from tests.api.coordinator.test_client import Listener

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


class Waiters:
    """The front's client of a `FrontHandle`, over a real stream on one loop."""

    async def __aenter__(self) -> Waiters:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        # The process is never touched: nothing here kills the front.
        self.front = FrontHandle(cast(LocalProcess, None), Deaf())
        self.client = CoordinatorClient(Listener())
        await loop.create_unix_connection(lambda: self.front, sock=ours)
        await loop.create_unix_connection(lambda: self.client, sock=theirs)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.close()
        self.front.close()

    def wait(self, count: int) -> list[asyncio.Future[CoordinatorReply]]:
        """Requests with the ids from 1."""
        return [self.client.send_request(GetJob(0, "a", 30.0)) for _ in range(count)]


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


@pytest.mark.parametrize(("count", "size"), [(8, 15 << 20), (100, 1 << 20), (400, 1 << 18)])
def test_large_replies_of_one_turn_all_arrive(count: int, size: int) -> None:
    async def scenario() -> None:
        async with Waiters() as waiters:
            pending = waiters.wait(count)
            for request_id in range(1, count + 1):
                waiters.front.send(encode(Reply(request_id, 200, bytes(size))))
            replies = await asyncio.wait_for(asyncio.gather(*pending), 30)
            assert {len(cast(Reply, reply).body) for reply in replies} == {size}

    asyncio.run(scenario())


def test_waiters_of_one_body_get_it_in_one_message() -> None:
    async def scenario() -> None:
        async with Waiters() as waiters:
            pending = waiters.wait(5)
            body = bytes(1 << 20)
            for request_id in (1, 2, 3):
                waiters.front.send_reply(Reply(request_id, 200, body))
            waiters.front.send_reply(Reply(4, 202, body))
            waiters.front.send_reply(Reply(5, 202, b"{}"))
            first, second, third, fourth, fifth = await asyncio.wait_for(asyncio.gather(*pending), 30)
            assert first is second is third and cast(Reply, first).body == body
            assert [cast(Reply, reply).status for reply in (first, fourth, fifth)] == [200, 202, 202]

    asyncio.run(scenario())


def test_a_front_that_does_not_read_is_sent_no_more_than_one_buffer() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            front = FrontHandle(cast(LocalProcess, None), Deaf())
            transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: front, sock=ours)
            for number in range(100):
                front.send_reply(Reply(number, 200, b"%03d" % number + bytes(1 << 20)))
            await asyncio.sleep(0)
            assert not front.accepts_events()
            assert transport.get_write_buffer_size() < UNREAD_MAX_BYTES + FRAME_BYTES + (2 << 20)
            reader, writer = await asyncio.open_unix_connection(sock=theirs)
            numbers: list[bytes] = []
            while len(numbers) < 100:
                (length,) = LENGTH.unpack(await reader.readexactly(4))
                messages = unpack(await reader.readexactly(length))
                numbers += [to_front_decoder.decode(message).body[:3] for message in messages]
            assert numbers == [b"%03d" % number for number in range(100)]
            writer.close()
            front.close()

    asyncio.run(scenario())


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
