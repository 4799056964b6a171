"""Effect: many readers of one event stream in one thread, as cheap as reading can be."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

import msgspec

from benchmarks.http_client import BenchmarkFailed

BUFFER_BYTES = 256 * 1024
#: Stands before every number of an event, whatever the transfer encoding puts between chunks.
MARK = b"\nid: "
#: The end of a stream is looked at: it holds the last event and what closes the transfer.
TAIL_BYTES = 2048
END = b"\r\n0\r\n\r\n"


class Reader(msgspec.Struct):
    """One connection and what it was sent."""

    socket: socket.socket
    tail: bytes = b""
    events: int = 0
    done: bool = False


class Readers:
    """Connections that all read the events of one job."""

    def __init__(self, port: int, job_id: str, count: int) -> None:
        host = f"127.0.0.1:{port}"
        request = (
            f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n"
        )
        self._poll = select.epoll()
        self._by_fd: dict[int, Reader] = {}
        # The mark may lie over two receptions: the last bytes of the one before stand in front.
        self._buffer = bytearray(len(MARK) - 1 + BUFFER_BYTES)
        self._receive_view = memoryview(self._buffer)[len(MARK) - 1 :]
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            connection.sendall(request.encode())
            connection.setblocking(False)
            self._by_fd[connection.fileno()] = Reader(connection)
            self._poll.register(connection.fileno(), select.EPOLLIN)
        self.first_at = 0.0
        self.last_at = 0.0

    @property
    def all(self) -> list[Reader]:
        return list(self._by_fd.values())

    def read_until(self, holds: Callable[[Reader], bool], *, within_s: float = 60.0) -> None:
        """Read whatever comes until this holds for each of them."""
        self.first_at = 0.0
        missing = {fd for fd, reader in self._by_fd.items() if not holds(reader)}
        deadline = time.monotonic() + within_s
        while missing:
            ready = self._poll.poll(1.0)
            if time.monotonic() > deadline:
                raise BenchmarkFailed(f"{len(missing)} readers of {len(self._by_fd)} wait for more")
            if ready and not self.first_at:
                self.first_at = time.perf_counter()
            for fd, _ in ready:
                reader = self._by_fd[fd]
                self._receive(reader)
                if holds(reader):
                    missing.discard(fd)
        self.last_at = time.perf_counter()

    def close(self) -> None:
        for reader in self._by_fd.values():
            reader.socket.close()
        self._poll.close()

    def _receive(self, reader: Reader) -> None:
        kept = len(MARK) - 1
        self._buffer[:kept] = reader.tail[-kept:].rjust(kept)
        size = reader.socket.recv_into(self._receive_view)
        if not size:
            raise BenchmarkFailed("a stream was cut before its end")
        end = kept + size
        reader.events += self._buffer.count(MARK, 0, end)
        new = bytes(self._buffer[max(kept, end - TAIL_BYTES) : end])
        reader.tail = new if size >= TAIL_BYTES else (reader.tail + new)[-TAIL_BYTES:]
        reader.done = reader.tail.endswith(END)
