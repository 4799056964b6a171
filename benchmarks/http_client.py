"""Effect: a blocking keep-alive HTTP client of a few lines, so that the client is not what is measured."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec


class BenchmarkFailed(Exception):
    """The server answered otherwise than the benchmark needs."""


class Connection:
    """One keep-alive connection to 127.0.0.1; one request at a time."""

    def __init__(self, port: int, *, timeout_s: float = 60.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host = f"127.0.0.1:{port}"
        self._buffer = bytearray()

    def close(self) -> None:
        self._socket.close()

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> bytes:
        """The whole request as bytes, so that a loop can encode it once."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and give its status and body."""
        self._socket.sendall(request)
        status, length = self._read_head()
        while len(self._buffer) < length:
            self._fill()
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return status, body

    def get(self, path: str) -> bytes:
        """The body of a GET that must answer 200."""
        return self._expect(200, self.request("GET", path))

    def post(self, path: str, body: bytes, status: int, headers: dict[str, str] | None = None) -> bytes:
        """The body of a POST that must answer `status`."""
        return self._expect(status, self.request("POST", path, body, headers))

    def put(self, path: str, body: bytes, status: int) -> bytes:
        """The body of a PUT that must answer `status`."""
        return self._expect(status, self.request("PUT", path, body))

    def stream(self, path: str) -> Iterator[tuple[str, bytes]]:
        """(event name, data) of an SSE stream as they arrive; the connection is used up."""
        self._socket.sendall(self.request("GET", path, headers={"Accept": "text/event-stream"}))
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        status = int(self._buffer[9:12])
        if status != 200:
            raise BenchmarkFailed(f"GET {path} answered {status}")
        return self._events()

    def _events(self) -> Iterator[tuple[str, bytes]]:
        # Chunk sizes of the transfer encoding stand on lines of their own and match no field below.
        name = ""
        while True:
            end = self._buffer.find(b"\n")
            if end < 0:
                self._fill()
                continue
            line = bytes(self._buffer[:end]).rstrip(b"\r")
            del self._buffer[: end + 1]
            if line.startswith(b"event:"):
                name = line[6:].strip().decode()
            elif line.startswith(b"data:"):
                yield name, line[5:].strip()

    def _read_head(self) -> tuple[int, int]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._fill()
        head = bytes(self._buffer[:end]).lower()
        del self._buffer[: end + 4]
        at = head.find(b"content-length:")
        if at < 0:
            raise BenchmarkFailed(f"an answer without Content-Length: {head!r}")
        return int(head[9:12]), int(head[at + 15 :].split(b"\r\n", 1)[0])

    def _fill(self) -> None:
        chunk = self._socket.recv(1 << 20)
        if not chunk:
            raise BenchmarkFailed("the server closed the connection")
        self._buffer += chunk

    def _expect(self, status: int, request: bytes) -> bytes:
        answered, body = self.exchange(request)
        if answered != status:
            raise BenchmarkFailed(f"{request[:80]!r} answered {answered}: {body[:500]!r}")
        return body


class JobRow(msgspec.Struct):
    """What the benchmark reads of a job."""

    id: str
    state: str
    output: dict[str, int] | None = None


class JobPage(msgspec.Struct):
    data: list[JobRow]
    next_cursor: str | None = None
