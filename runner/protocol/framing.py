"""Pure: packs messages into a frame, and frames into a byte stream.

A frame is the msgpack list of *encoded* messages (bytes each), so that a worker forwards an executor's
messages without decoding their bodies. In a byte stream a frame is preceded by its length as an unsigned
32-bit big-endian integer; in ZeroMQ it is one message part.
"""

from __future__ import annotations

import struct

import msgspec

from runner.errors import RunnerError

#: Largest frame: the largest accepted request body plus overhead.
MAX_FRAME_BYTES = 80 * 1024 * 1024
LENGTH = struct.Struct(">I")


class WireError(RunnerError):
    """A frame, or a message in it, is invalid."""

    code, title = "wire_error", "A peer sent an invalid frame"


_encoder = msgspec.msgpack.Encoder()
_frame_decoder = msgspec.msgpack.Decoder(list[bytes])


def pack(messages: list[bytes]) -> bytes:
    """Return a frame of encoded messages, without its length."""
    return _encoder.encode(messages)


def unpack(frame: bytes | memoryview) -> list[bytes]:
    """Return the encoded messages of a frame.

    Raises:
        WireError: the bytes are not a frame.
    """
    try:
        return _frame_decoder.decode(frame)
    except msgspec.DecodeError as error:
        raise WireError(f"cannot decode a frame of {len(frame)} bytes: {error}") from error


def with_length(frame: bytes) -> bytes:
    """Return the frame as a byte stream carries it: preceded by its length."""
    return LENGTH.pack(len(frame)) + frame


class FrameBuffer:
    """Splits a byte stream into frames.

    `max_bytes` bounds one frame, and so the memory that a peer can use.
    """

    __slots__ = ("_data", "_max")

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._data = bytearray()
        self._max = max_bytes

    def feed(self, chunk: bytes) -> list[bytes]:
        """Add bytes and return all frames that are complete now, in order.

        Raises:
            WireError: a length exceeds the bound; the stream can't be used any further.
        """
        data = self._data
        data += chunk
        frames: list[bytes] = []
        at = 0
        while len(data) - at >= 4:
            (length,) = LENGTH.unpack_from(data, at)
            if length > self._max:
                raise WireError(f"a frame announces {length} bytes; the limit is {self._max}")
            if len(data) - at - 4 < length:
                break
            frames.append(bytes(data[at + 4 : at + 4 + length]))
            at += 4 + length
        if at:
            del data[:at]
        return frames
