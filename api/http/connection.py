"""Effect: one client's connection: uvicorn's HTTP protocol with additional limits."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.http.coalescing_transport import CoalescingTransport
from api.http.problems import MEDIA_TYPE, problem_document

#: Limit on the request line and headers together.
HEAD_BYTES = 16 * 1024
#: Limit on a trailer field, which may follow the last chunk of a body, until the parser reports it.
TRAILER_BYTES = 16 * 1024
#: A body that arrives more slowly than this for a whole receipt period is rejected.
BODY_BYTES_PER_S = 64 * 1024
#: Send buffer of an event stream; the kernel doubles it.
STREAM_BUFFER_BYTES = 64 * 1024


class ConnectionLimits:
    """Time limits of every connection, in seconds."""

    #: For the request's head, and for each part of its body.
    receipt_s = 10.0
    #: Within which a reader must read something.
    stall_s = 30.0


class ClientGone(Exception):
    """The client disconnected while its response was awaited, so no response can be sent."""


class Connection(HttpToolsProtocol):
    """HTTP/1.1 with limits on the head's size, the time a request takes to arrive, and stalled readers.

    Routes find it as `scope["state"]["connection"]`.
    """

    limits = ConnectionLimits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._receipt_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        #: Bytes that the client had not read when the stall timer was started.
        self._unsent = 0
        self._head_bytes = 0
        self._head_complete = False
        #: A chunk's size has arrived but none of its bytes; after the last chunk's size come trailers.
        self._behind_chunk_size = False
        #: Bytes received since then: a field that never ends reaches no callback.
        self._trailer_bytes = 0
        #: Body bytes since the receipt timer was started.
        self._body_bytes = 0
        self._refused = False
        #: The future that a route awaits for this client.
        self._awaited: asyncio.Future[Any] | None = None

    async def while_connected(self, awaited: asyncio.Future[Any]) -> Any:
        """Return the result of `awaited`; raise ClientGone as soon as the client disconnects."""
        self._awaited = awaited
        if self.transport.is_closing() and not awaited.done():
            raise ClientGone
        try:
            return await awaited
        finally:
            self._awaited = None

    def abort(self) -> None:
        """Close the connection at once and drop unsent data."""
        self.transport.abort()

    def shrink_send_buffer(self) -> None:
        """Shrink the kernel's send buffer, for an event stream.

        The default holds megabytes for a stalled reader, which would be noticed only when they are full.

        Raises:
            ClientGone: the connection is closed.
        """
        if self.transport.is_closing():
            raise ClientGone
        stream = self.transport.get_extra_info("socket")
        if stream is not None:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STREAM_BUFFER_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the event loop."""
        super().connection_made(transport)
        self.transport = CoalescingTransport(transport, self.loop)
        self._start_receipt_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        super().connection_lost(exc)
        self._cancel_receipt_timer()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_exception(ClientGone())

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self._refused:
            return
        if not self._head_complete:
            self._head_bytes += len(data)
        if self._behind_chunk_size:
            self._trailer_bytes += len(data)
        super().data_received(data)
        # A head that never ends reaches no callback of the parser: count its bytes here as well.
        if not self._head_complete and self._head_bytes > HEAD_BYTES and not self._refused:
            self._refuse_head()
        if self._trailer_bytes > TRAILER_BYTES:
            detail = f"a trailer field is larger than {TRAILER_BYTES} bytes"
            self._refuse_trailers(431, "headers_too_large", "Request header fields too large", detail)

    def on_message_begin(self) -> None:
        """Called by the parser."""
        super().on_message_begin()
        self._head_complete = False
        self._head_bytes = 0
        self.scope["state"]["connection"] = self
        if self._receipt_timer is None:
            self._start_receipt_timer()

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._refused:
            return
        self._head_complete = True
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > HEAD_BYTES:
            self._refuse_head()
            return
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser for each field of the head and of the trailers.

        A trailer is refused: uvicorn would add it to the headers, some of which were checked before the body.
        """
        if self._refused:
            return
        if self._head_complete:
            detail = "trailer fields are not supported; send them as headers"
            self._refuse_trailers(400, "bad_request", "Bad request", detail)  # guard: trailers-refused
            return
        super().on_header(name, value)

    def on_chunk_header(self) -> None:
        """Called by the parser after a chunk's size."""
        self._behind_chunk_size = True

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        if self._refused:
            return
        self._body_bytes += len(body)
        self._reset_trailers()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._cancel_receipt_timer()
        self._reset_trailers()
        if not self._refused:
            super().on_message_complete()
        self._head_complete = False
        self._head_bytes = 0

    def pause_writing(self) -> None:
        """Called by the event loop when the client reads more slowly than data is sent."""
        super().pause_writing()
        self._start_stall_timer()

    def resume_writing(self) -> None:
        """Called by the event loop."""
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn if a request can't be parsed."""
        self._refuse(400, "bad_request", "Bad request", msg)

    def _start_receipt_timer(self) -> None:
        self._body_bytes = 0
        self._receipt_timer = self.loop.call_later(self.limits.receipt_s, self._on_receipt_timeout)

    def _cancel_receipt_timer(self) -> None:
        if self._receipt_timer is not None:
            self._receipt_timer.cancel()
            self._receipt_timer = None

    def _on_receipt_timeout(self) -> None:
        self._receipt_timer = None
        if self.transport.is_closing():
            return
        fast_enough = self._body_bytes >= BODY_BYTES_PER_S * self.limits.receipt_s
        answered = self.cycle is not None and self.cycle.response_complete
        # The client is not slow if the server itself does not read, because an earlier request is in
        # progress.
        if self.flow.read_paused or (fast_enough and not answered):
            self._start_receipt_timer()
            return
        if self.cycle is None or (answered and not self._head_complete):
            self._refuse(408, "request_timeout", "Request timeout", "the request did not arrive in time")
        else:
            self.transport.abort()

    def _start_stall_timer(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._stall_timer = self.loop.call_later(self.limits.stall_s, self._on_stall_timeout)

    def _on_stall_timeout(self) -> None:
        self._stall_timer = None
        # A slow reader may continue, a stalled one is disconnected.
        if self.transport.get_write_buffer_size() < self._unsent:
            self._start_stall_timer()
        else:
            self.transport.abort()

    def _reset_trailers(self) -> None:
        self._behind_chunk_size = False
        self._trailer_bytes = 0

    def _refuse_trailers(self, status: int, code: str, title: str, detail: str) -> None:
        if self._refused:
            return
        if self.cycle.response_started or self.pipeline:
            # Part of a response was sent: the client would read another one as its rest.
            self._refused = True
            self._cancel_receipt_timer()
            self.transport.abort()
            return
        self._refuse(status, code, title, detail)

    def _refuse_head(self) -> None:
        detail = f"request line and headers are larger than {HEAD_BYTES} bytes"
        self._refuse(431, "headers_too_large", "Request header fields too large", detail)

    def _refuse(self, status: int, code: str, title: str, detail: str) -> None:
        """Send a problem without the application, then close the connection."""
        if self._refused:
            return
        self._refused = True
        self._cancel_receipt_timer()
        body = problem_document(status, code, title, detail, {})
        head = f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.close()
