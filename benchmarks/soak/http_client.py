"""Effect: a lean HTTP client that tells a lost connection from an answer and waits for nothing for ever."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.soak.recorder import HistoryRecorder, SseEvent, parse_sse

#: Every answer comes within this, besides what `Prefer: wait` asked for.
RESPONSE_TIMEOUT_S = 20.0
#: A stream says something at least every 15 s.
SILENCE_S = 45.0
IDLE_KEPT = 20


class ConnectionLost(Exception):
    """The connection went before the answer was whole: what became of the request is not known."""


class ResponseOverdue(ConnectionLost):
    """No answer came in time."""


@dataclass(frozen=True, slots=True)
class SoakResponse:
    status: int
    headers: dict[str, str]
    body: bytes

    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code, "" where there is none."""
        try:
            return str(self.document().get("code", ""))
        except (ValueError, AttributeError):
            return ""


class Connection:
    """One connection to the server; one request at a time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        self._writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await self._writer.drain()

    async def read_head(self) -> tuple[int, dict[str, str]]:
        assert self._reader is not None
        text = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = text.strip().split("\r\n")
        headers = {}
        for line in rest:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(first.split(" ", 2)[1]), headers

    async def read_body(self, headers: dict[str, str]) -> bytes:
        assert self._reader is not None
        if "content-length" in headers:
            return await self._reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") == "chunked":
            return b"".join([chunk async for chunk in self.read_chunks()])
        return b""

    async def read_chunks(self) -> AsyncIterator[bytes]:
        """The parts of a chunked body as they come."""
        assert self._reader is not None
        while True:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            chunk = await self._reader.readexactly(size + 2)
            if size == 0:
                return
            yield chunk[:-2]

    async def read_some(self, count: int) -> bytes:
        """At most `count` raw bytes; b"" at the end."""
        assert self._reader is not None
        return await self._reader.read(count)

    @property
    def is_stale(self) -> bool:
        """Whether the server has closed it meanwhile."""
        return self._reader is None or self._reader.at_eof() or self._reader.exception() is not None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


class HttpClient:
    """Requests over kept connections; each is recorded with its answer."""

    def __init__(self, port: int, recorder: HistoryRecorder) -> None:
        self.port = port
        self.recorder = recorder
        self._idle: list[Connection] = []
        #: What was not answered in time.
        self.overdue: list[str] = []
        self.requests = 0

    async def request(
        self,
        method: str,
        path: str,
        document: object = None,
        *,
        headers: dict[str, str] | None = None,
        wait_s: float = 0.0,
        fresh: bool = False,
    ) -> SoakResponse:
        """The answer, whatever it says.

        Raises:
            ConnectionLost: there was none.
        """
        start = time.monotonic()
        answer: SoakResponse | None = None
        try:
            answer = await self._send(method, path, document, headers, wait_s, fresh)
            return answer
        finally:
            status, body = (None, b"") if answer is None else (answer.status, answer.body)
            self.recorder.record_request(method, path, document, start, status, body)

    async def _send(
        self,
        method: str,
        path: str,
        document: object,
        headers: dict[str, str] | None,
        wait_s: float,
        fresh: bool,
    ) -> SoakResponse:
        self.requests += 1
        body = b"" if document is None else json.dumps(document).encode()
        headers = dict(headers or {})
        if wait_s:
            headers["Prefer"] = f"wait={wait_s:g}"
        connection = self._take_connection(fresh)
        within_s = RESPONSE_TIMEOUT_S + wait_s
        async with self.time_limit(connection, within_s, f"{method} {path} was not answered"):
            await connection.send(method, path, body, headers)
            status, got = await connection.read_head()
            answer = SoakResponse(status, got, await connection.read_body(got))
        if got.get("connection") == "close" or len(self._idle) >= IDLE_KEPT:
            connection.close()
        else:
            self._idle.append(connection)
        return answer

    async def stream(self, path: str, after: int | None = None) -> EventStream | SoakResponse:
        """An open stream, or the answer that it was not opened with. Raises ConnectionLost."""
        start = time.monotonic()
        connection = Connection(self.port)
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        self.requests += 1
        async with self.time_limit(connection, RESPONSE_TIMEOUT_S, f"GET {path} did not begin"):
            await connection.send("GET", path, b"", headers)
            status, got = await connection.read_head()
            if status == 200:
                return EventStream(connection, self, path, after, start)
            answer = SoakResponse(status, got, await connection.read_body(got))
        connection.close()
        self.recorder.record_stream(path, after, start, status, "closed", [])
        return answer

    @asynccontextmanager
    async def time_limit(self, connection: Connection, within_s: float, what: str) -> AsyncIterator[None]:
        """Wait so long for what a connection is to bring; one that brings nothing is closed.

        Raises:
            ConnectionLost: nothing came in time, or the connection broke.
        """
        try:
            async with asyncio.timeout(within_s):
                yield
        except TimeoutError as error:
            connection.close()
            self.overdue.append(f"{what} within {within_s:g} s")
            raise ResponseOverdue from error
        except (OSError, EOFError, asyncio.IncompleteReadError) as error:
            connection.close()
            raise ConnectionLost from error
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Let go of the kept connections."""
        while self._idle:
            self._idle.pop().close()

    def _take_connection(self, fresh: bool) -> Connection:
        while self._idle and not fresh:
            connection = self._idle.pop()
            if not connection.is_stale:
                return connection
            connection.close()
        return Connection(self.port)


class EventStream:
    """An open SSE stream; it is recorded when it is closed."""

    def __init__(
        self, connection: Connection, http: HttpClient, path: str, after: int | None, start: float
    ) -> None:
        self.connection = connection
        self._http = http
        self._path, self._after, self._start = path, after, start
        self._seen: list[SseEvent] = []
        #: How it ends, as far as is known.
        self._how = "left"

    async def events(self) -> AsyncIterator[SseEvent]:
        """Until the server closes it in order. Raises ConnectionLost where it is cut."""
        buffer = bytearray()
        chunks = self.connection.read_chunks()
        while True:
            try:
                async with self._http.time_limit(self.connection, SILENCE_S, "a stream said nothing"):
                    chunk = await anext(chunks, None)
            except ConnectionLost:
                self._how = "cut"
                raise
            if chunk is None:
                self._how = "closed"
                return
            buffer += chunk
            for event in parse_sse(buffer):
                self._seen.append(event)
                yield event

    def close(self) -> None:
        self.connection.close()
        self._http.recorder.record_stream(self._path, self._after, self._start, 200, self._how, self._seen)
