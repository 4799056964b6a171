"""Effect: connections of both clients: pools of `httpcore2`, whose streams send a request in one write."""

from __future__ import annotations

import select
import socket
import ssl
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

import httpcore2
from httpcore2 import SOCKET_OPTION

#: The head of a request and a body up to this size are sent together.
HELD_MAX_BYTES = 64 * 1024
#: Shorter than the server's keep-alive: no request is sent on a connection that is being closed.
KEEPALIVE_S = 3.0


class PoolOptions(TypedDict):
    """What both pools are made with; `uds` is the path of a Unix socket that leads to every origin."""

    ssl_context: ssl.SSLContext | None
    proxy: httpcore2.Proxy | None
    uds: str | None


class KeptConnections:
    """The connections of a pool over which whole requests and responses go, kept between requests.

    Each serves one request at a time. A pool itself looks through all of its requests and connections before
    and after each request, which takes as long as the rest of a short one: it serves only streams here.
    """

    def __init__(self, pool: httpcore2.ConnectionPool, origin: httpcore2.Origin) -> None:
        self._pool = pool
        self._origin = origin
        #: The last one used is the last. A deque, as threads share the client.
        self._idle: deque[httpcore2.ConnectionInterface] = deque()
        self._is_closed = False

    def send(self, request: httpcore2.Request) -> httpcore2.Response:
        """Return the complete response; raises the errors of `httpcore2`."""
        connection = self._take()
        try:
            response = connection.handle_request(request)
            try:
                response.read()
            finally:
                response.close()
        finally:
            self._keep(connection)
        return response

    def close(self) -> None:
        """Close the idle connections, and each other one once its response is read."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> httpcore2.ConnectionInterface:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._pool.create_connection(self._origin)
            if not connection.has_expired():
                return connection
            connection.close()

    def _keep(self, connection: httpcore2.ConnectionInterface) -> None:
        if self._is_closed or not connection.is_idle() or connection.is_closed():
            connection.close()
            return
        self._idle.append(connection)
        # Those that a burst of threads has left behind.
        while len(self._idle) > 1 and self._idle[0].has_expired():
            self._idle.popleft().close()


class AsyncKeptConnections:
    """`KeptConnections` for an event loop."""

    def __init__(self, pool: httpcore2.AsyncConnectionPool, origin: httpcore2.Origin) -> None:
        self._pool = pool
        self._origin = origin
        self._idle: deque[httpcore2.AsyncConnectionInterface] = deque()
        self._is_closed = False

    async def send(self, request: httpcore2.Request) -> httpcore2.Response:
        """See `KeptConnections.send`."""
        connection = await self._take()
        try:
            response = await connection.handle_async_request(request)
            try:
                await response.aread()
            finally:
                await response.aclose()
        finally:
            await self._keep(connection)
        return response

    async def aclose(self) -> None:
        """See `KeptConnections.close`."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().aclose()

    async def _take(self) -> httpcore2.AsyncConnectionInterface:
        while self._idle:
            connection = self._idle.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return self._pool.create_connection(self._origin)

    async def _keep(self, connection: httpcore2.AsyncConnectionInterface) -> None:
        if self._is_closed or not connection.is_idle() or connection.is_closed():
            await connection.aclose()
            return
        self._idle.append(connection)
        while len(self._idle) > 1 and self._idle[0].has_expired():
            await self._idle.popleft().aclose()


def open_pool(options: PoolOptions) -> httpcore2.ConnectionPool:
    """Return a pool for threads; it connects when it is used."""
    return httpcore2.ConnectionPool(
        max_connections=None, keepalive_expiry=KEEPALIVE_S, network_backend=OneWriteBackend(), **options
    )


def open_async_pool(options: PoolOptions) -> httpcore2.AsyncConnectionPool:
    """Return a pool for the tasks of one event loop; it connects when it is used."""
    return httpcore2.AsyncConnectionPool(
        max_connections=None, keepalive_expiry=KEEPALIVE_S, network_backend=AsyncOneWriteBackend(), **options
    )


class OneWriteStream(httpcore2.NetworkStream):
    """Holds what is written until the response is read.

    `httpcore2` writes the head and the body of a request separately, which are two packets, for each of which
    the server wakes up.
    """

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream
        self._held = b""
        self._write_timeout_s: float | None = None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Hold the bytes, or send them and the held ones if they are many."""
        self._held += buffer[:HELD_MAX_BYTES]
        self._write_timeout_s = timeout
        if len(self._held) >= HELD_MAX_BYTES:
            held, self._held = self._held, b""
            self._stream.write(held, timeout)
            self._stream.write(buffer[HELD_MAX_BYTES:], timeout)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Send what is held, then read."""
        if self._held:
            held, self._held = self._held, b""
            try:
                self._stream.write(held, self._write_timeout_s)
            except httpcore2.WriteError:
                # As in httpcore2: a server that closes early may have responded before, so read that.
                return self._stream.read(max_bytes, timeout)
        return self._stream.read(max_bytes, timeout)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Return the stream over TLS."""
        return OneWriteStream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """See `httpcore2.NetworkStream`."""
        return self._stream.get_extra_info(info)


class UnixStream(httpcore2.NetworkStream):
    """A connected Unix socket."""

    def __init__(self, unix: socket.socket) -> None:
        self._socket = unix

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read at most `max_bytes`; b"" at the end."""
        with _socket_errors(httpcore2.ReadTimeout, httpcore2.ReadError):
            self._socket.settimeout(timeout)
            return self._socket.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all bytes."""
        with _socket_errors(httpcore2.WriteTimeout, httpcore2.WriteError):
            self._socket.settimeout(timeout)
            self._socket.sendall(buffer)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        """Return whether the socket is readable, which an idle one is once the server has closed it."""
        if info != "is_readable":
            return None
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(0))


@contextmanager
def _socket_errors(on_timeout: type[Exception], on_error: type[Exception]) -> Iterator[None]:
    """Raise errors of a socket as those of `httpcore2`."""
    try:
        yield
    except TimeoutError as error:
        raise on_timeout(str(error)) from error
    except OSError as error:
        raise on_error(str(error)) from error


class OneWriteBackend(httpcore2.SyncBackend):
    """Connects as `httpcore2` does; its streams are `OneWriteStream`."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """See `httpcore2.NetworkBackend`."""
        return OneWriteStream(super().connect_tcp(host, port, timeout, local_address, socket_options))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[SOCKET_OPTION] | None = None
    ) -> httpcore2.NetworkStream:
        """See `httpcore2.NetworkBackend`, which leaves the socket open where the connection is refused."""
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _socket_errors(httpcore2.ConnectTimeout, httpcore2.ConnectError):
                unix.settimeout(timeout)
                unix.connect(path)
        except BaseException:
            unix.close()
            raise
        return OneWriteStream(UnixStream(unix))


class AsyncOneWriteStream(httpcore2.AsyncNetworkStream):
    """`OneWriteStream` for an event loop."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._held = b""
        self._write_timeout_s: float | None = None

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See `OneWriteStream.write`."""
        self._held += buffer[:HELD_MAX_BYTES]
        self._write_timeout_s = timeout
        if len(self._held) >= HELD_MAX_BYTES:
            held, self._held = self._held, b""
            await self._stream.write(held, timeout)
            await self._stream.write(buffer[HELD_MAX_BYTES:], timeout)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See `OneWriteStream.read`."""
        if self._held:
            held, self._held = self._held, b""
            try:
                await self._stream.write(held, self._write_timeout_s)
            except httpcore2.WriteError:
                # As in `OneWriteStream.read`.
                return await self._stream.read(max_bytes, timeout)
        return await self._stream.read(max_bytes, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Return the stream over TLS."""
        return AsyncOneWriteStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """See `httpcore2.AsyncNetworkStream`."""
        return self._stream.get_extra_info(info)


class AsyncOneWriteBackend(httpcore2.AnyIOBackend):
    """`OneWriteBackend` for an event loop."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """See `httpcore2.AsyncNetworkBackend`."""
        stream = await super().connect_tcp(host, port, timeout, local_address, socket_options)
        return AsyncOneWriteStream(stream)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[SOCKET_OPTION] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """See `httpcore2.AsyncNetworkBackend`."""
        return AsyncOneWriteStream(await super().connect_unix_socket(path, timeout, socket_options))
