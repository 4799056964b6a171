"""The front's end of the control stream, over a real socket pair."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from api.coordinator.client import CoordinatorClient
from runner.errors import Unavailable
from runner.jobs.job import Submission
from runner.protocol import framing
from runner.protocol import front as front_protocol


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.lost = asyncio.Event()

    def on_job_events(self, message: front_protocol.JobEvents) -> None:
        self.told.append(message)

    def on_job_waiting(self, message: front_protocol.JobWaiting) -> None:
        self.told.append(message)

    def on_handlers_update(self, update: front_protocol.HandlersUpdate) -> None:
        self.told.append(update)

    def on_memory_level(self, message: front_protocol.MemoryLevel) -> None:
        self.told.append(message)

    def on_shutdown_begun(self, deadline_s: float) -> None:
        self.told.append(deadline_s)

    def on_exit_requested(self) -> None:
        self.told.append("exit")

    def on_coordinator_lost(self) -> None:
        self.lost.set()


Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def linked(check: Callable[[CoordinatorClient, Listener, Peer], Awaitable[None]]) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        listener = Listener()
        link = CoordinatorClient(listener)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        peer = await asyncio.open_unix_connection(sock=theirs)
        try:
            await asyncio.wait_for(check(link, listener, peer), 10)
        finally:
            link.close()
            peer[1].close()

    asyncio.run(run())


async def frame(peer: Peer) -> list[Any]:
    (length,) = framing.LENGTH.unpack(await peer[0].readexactly(4))
    return [
        front_protocol.to_coordinator_decoder.decode(one)
        for one in framing.unpack(await peer[0].readexactly(length))
    ]


def say(peer: Peer, *messages: Any) -> None:
    peer[1].write(framing.with_length(framing.pack([front_protocol.encode(message) for message in messages])))


def test_questions_of_one_turn_travel_in_one_frame() -> None:
    async def check(link: CoordinatorClient, listener: Listener, peer: Peer) -> None:
        answers = [link.send_request(front_protocol.GetJob(0, name)) for name in "abc"]
        asked = await frame(peer)
        assert [question.job_id for question in asked] == ["a", "b", "c"]
        say(
            peer,
            *(
                front_protocol.Reply(question.request_id, 200, question.job_id.encode())
                for question in reversed(asked)
            ),
        )
        replies = await asyncio.gather(*answers)
        assert [reply.body for reply in replies if isinstance(reply, front_protocol.Reply)] == [
            b"a",
            b"b",
            b"c",
        ]
        assert link.pending_count == 0

    linked(check)


def test_large_questions_travel_in_frames_of_their_own() -> None:
    async def check(link: CoordinatorClient, listener: Listener, peer: Peer) -> None:
        for _ in range(2):
            link.send_request(
                front_protocol.SubmitJobs(0, [Submission("id", "echo", b"x" * framing.FRAME_BYTES)])
            )
        assert [len(await frame(peer)) for _ in range(2)] == [1, 1]

    linked(check)


def test_an_answer_that_nobody_awaits_any_more_is_dropped() -> None:
    async def check(link: CoordinatorClient, listener: Listener, peer: Peer) -> None:
        first, second = (
            link.send_request(front_protocol.GetJob(0, "a")),
            link.send_request(front_protocol.GetJob(0, "b")),
        )
        first.cancel()
        say(peer, front_protocol.Reply(1, 200), front_protocol.Reply(99, 200), front_protocol.Reply(2, 204))
        reply = await second
        assert isinstance(reply, front_protocol.Reply) and reply.status == 204

    linked(check)


def test_what_is_told_reaches_the_listener_in_order() -> None:
    async def check(link: CoordinatorClient, listener: Listener, peer: Peer) -> None:
        feed = front_protocol.JobEvents("a", [(1, "done", b"{}")], True)
        sight = front_protocol.MemoryLevel("reports")
        say(
            peer,
            front_protocol.HandlersUpdate([], False),
            sight,
            feed,
            front_protocol.ShutdownBegun(3.0),
            front_protocol.Exit(),
        )
        peer[1].close()
        await listener.lost.wait()
        assert listener.told == [front_protocol.HandlersUpdate([], False), sight, feed, 3.0, "exit"]

    linked(check)


def test_a_ping_is_answered_at_once() -> None:
    async def check(link: CoordinatorClient, listener: Listener, peer: Peer) -> None:
        say(peer, front_protocol.Ping())
        assert await frame(peer) == [front_protocol.Pong()]

    linked(check)


def test_a_lost_coordinator_fails_all_who_wait_and_all_who_come() -> None:
    async def check(link: CoordinatorClient, listener: Listener, peer: Peer) -> None:
        waiting = link.send_request(front_protocol.GetJob(0, "a"), wait_s=300)
        peer[1].close()
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            link.send_request(front_protocol.GetJob(0, "b"))

    linked(check)
