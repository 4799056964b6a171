"""Effect: a transport that sends the head of a response together with its body."""

from __future__ import annotations

import asyncio
from typing import Any


class CoalescingTransport(asyncio.Transport):
    """Joins the writes of uvicorn, which writes a response's head and body separately.

    Separate writes are two packets, for each of which the kernel and the client wake up. A head is held until
    the next write, or until the next loop iteration if none follows (before a stream's first event).
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send data; a response's head is held briefly."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        elif data[:5] == b"HTTP/":
            self._head = bytes(data)
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close after sending what was written, as every transport does."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Drop unsent data."""
        self._head = b""
        self._transport.abort()

    def is_closing(self) -> bool:
        """See `asyncio.Transport`."""
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that the kernel has not accepted."""
        return self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.Transport`."""
        return self._transport.get_extra_info(name, default)

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)
