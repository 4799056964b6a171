"""Effect: how requests of both clients reach a socket: in one write, over kept connections, by a proxy."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runner import AsyncClient, Client
from runner.client.network import HELD_MAX_BYTES
from runner.errors import BadRequest, NoServer
from tests.runner.client.fake_server import CannedReply, fake_server

ANSWER = b'{"data":[]}'
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)


class PacketServer:
    """Answers requests of any kind, and records what each `recv` gave, by connection."""

    def __init__(self, listening: socket.socket, *, requests_per_connection: int) -> None:
        self.port = listening.getsockname()[1]
        self.packets: list[list[bytes]] = []
        #: Released for each connection that the server has closed.
        self.closed = threading.Semaphore(0)
        self._listening = listening
        self._requests_max = requests_per_connection

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.packets.append([])
            threading.Thread(target=self._converse, args=(connection, self.packets[-1]), daemon=True).start()

    def _converse(self, connection: socket.socket, packets: list[bytes]) -> None:
        with connection:
            for _ in range(self._requests_max):
                text = b""
                while not _is_complete(text):
                    packet = connection.recv(1 << 20)
                    if not packet:
                        return
                    packets.append(packet)
                    text += packet
                connection.sendall(REPLY + ANSWER)
        self.closed.release()


def _is_complete(text: bytes) -> bool:
    head, end, body = text.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and (not lengths or len(body) >= int(lengths[0].partition(b":")[2]))


@contextmanager
def packet_server(requests_per_connection: int = 100) -> Iterator[PacketServer]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = PacketServer(listening, requests_per_connection=requests_per_connection)
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_head_and_body_of_a_request_are_one_packet() -> None:
    with packet_server() as server, Client(f"http://127.0.0.1:{server.port}", "hush") as client:
        client.cancel("1", "enough")
        ((packet,),) = server.packets
    assert packet.endswith(b'\r\n\r\n{"reason":"enough"}')
    assert b"Authorization: Bearer hush" in packet


def test_the_async_client_sends_one_packet_too() -> None:
    async def use(port: int) -> None:
        async with AsyncClient(f"http://127.0.0.1:{port}") as client:
            await client.cancel("1", "enough")

    with packet_server() as server:
        asyncio.run(use(server.port))
        ((packet,),) = server.packets
    assert packet.endswith(b'\r\n\r\n{"reason":"enough"}')


@pytest.mark.parametrize("size", [HELD_MAX_BYTES - 200, HELD_MAX_BYTES + 1, 3 * HELD_MAX_BYTES])
def test_a_body_of_any_size_arrives_whole(size: int) -> None:
    reason = "x" * size

    async def use(port: int) -> None:
        async with AsyncClient(f"http://127.0.0.1:{port}") as client:
            await client.cancel("1", reason)

    with packet_server() as server:
        with Client(f"http://127.0.0.1:{server.port}") as client:
            client.cancel("1", reason)
        asyncio.run(use(server.port))
        bodies = [b"".join(packets).partition(b"\r\n\r\n")[2] for packets in server.packets]
    assert bodies == [b'{"reason":"%s"}' % reason.encode()] * 2


def test_requests_share_a_kept_connection_and_a_dead_one_is_replaced() -> None:
    with packet_server(requests_per_connection=2) as server:
        with Client(f"http://127.0.0.1:{server.port}") as client:
            client.queues()
            client.queues()
            assert server.closed.acquire(timeout=10)
            client.queues()
        assert [len(packets) for packets in server.packets] == [2, 1]


def test_the_async_client_replaces_a_dead_connection_too() -> None:
    async def use(server: PacketServer) -> None:
        async with AsyncClient(f"http://127.0.0.1:{server.port}") as client:
            await client.queues()
            await client.queues()
            assert await asyncio.to_thread(server.closed.acquire, timeout=10)
            await client.queues()

    with packet_server(requests_per_connection=2) as server:
        asyncio.run(use(server))
        assert [len(packets) for packets in server.packets] == [2, 1]


def test_threads_share_a_client_with_a_connection_each() -> None:
    both = threading.Barrier(2)

    def answer(_: object) -> CannedReply:
        # Two requests at once: neither is answered before both have arrived.
        both.wait(10)
        return CannedReply(200, {"data": []})

    with fake_server({("GET", "/v1/queues"): answer}) as server, Client(server.url) as client:
        threads = [threading.Thread(target=client.queues) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.asked) == 2


def test_a_lost_connection_is_a_no_server_error_and_a_closed_client_says_so() -> None:
    with packet_server(requests_per_connection=0) as server:
        client = Client(f"http://127.0.0.1:{server.port}")
        with pytest.raises(NoServer, match="whether the request was accepted is unknown"):
            client.cancel("1")
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.queues()


def test_a_client_that_is_closed_during_a_request_keeps_no_connection() -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def answer(_: object) -> CannedReply:
        asked.set()
        assert may_answer.wait(10)
        return CannedReply(200, {"data": []})

    found: list[object] = []
    with fake_server({("GET", "/v1/queues"): answer}) as server:
        client = Client(server.url)
        thread = threading.Thread(target=lambda: found.append(client.queues()))
        thread.start()
        assert asked.wait(10)
        client.close()
        may_answer.set()
        thread.join()
    assert (found, list(client._kept._idle)) == ([[]], [])


def test_a_proxy_of_the_environment_gets_the_whole_url(monkeypatch: pytest.MonkeyPatch) -> None:
    with packet_server() as proxy:
        monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "direct.invalid")
        with Client("http://jobs.invalid/api") as client:
            assert client.queues() == []
        with Client("http://direct.invalid") as client, pytest.raises(NoServer):
            client.queues()
        ((packet,),) = proxy.packets
    assert packet.startswith(b"GET http://jobs.invalid/api/v1/queues HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0" in packet


def test_a_user_in_the_url_is_sent_as_basic_authentication() -> None:
    with packet_server() as server, Client(f"http://me:secret@127.0.0.1:{server.port}") as client:
        client.queues()
        ((packet,),) = server.packets
    assert b"Authorization: Basic bWU6c2VjcmV0" in packet
    assert b"\r\nHost: 127.0.0.1:%d\r\n" % server.port in packet


@pytest.mark.parametrize("url", ["http://", "http://host:port", "http://[::1", "unix://", "ftp://host"])
def test_an_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="invalid URL"):
        Client(url)
