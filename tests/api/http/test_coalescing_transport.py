"""An answer leaves in one packet where it can, and nothing of it is lost where it cannot."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from api.http.coalescing_transport import CoalescingTransport

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


def over_sockets(check: Callable[[CoalescingTransport, socket.socket], Awaitable[None]]) -> None:
    """Run `check` over a socket pair."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        with theirs:
            await asyncio.wait_for(check(CoalescingTransport(transport, loop), theirs), 10)
            transport.abort()

    asyncio.run(run())


async def received(peer: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(peer, 4096)


def test_head_and_body_leave_together() -> None:
    async def check(transport: CoalescingTransport, peer: socket.socket) -> None:
        transport.write(HEAD)
        with pytest.raises(BlockingIOError):
            peer.recv(1)
        transport.write(b"body")
        assert await received(peer) == HEAD + b"body"

    over_sockets(check)


def test_a_head_that_nothing_follows_leaves_with_the_next_turn() -> None:
    async def check(transport: CoalescingTransport, peer: socket.socket) -> None:
        transport.write(HEAD)
        assert await received(peer) == HEAD
        transport.write(b"later")
        assert await received(peer) == b"later"

    over_sockets(check)


def test_a_head_leaves_before_the_connection_closes() -> None:
    async def check(transport: CoalescingTransport, peer: socket.socket) -> None:
        transport.write(HEAD)
        transport.close()
        assert transport.is_closing()
        assert await received(peer) == HEAD
        assert await received(peer) == b""

    over_sockets(check)


def test_an_aborted_head_never_leaves() -> None:
    async def check(transport: CoalescingTransport, peer: socket.socket) -> None:
        transport.write(HEAD)
        transport.abort()
        assert await received(peer) == b""

    over_sockets(check)
