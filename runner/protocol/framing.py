"""Pure: packs messages into a frame, and frames into a byte stream.

A frame is the msgpack list of *encoded* messages (bytes each), so that a worker passes an executor's
messages on without decoding their bodies. Over a byte stream a frame is preceded by its length as an
unsigned 32-bit big-endian integer; over ZeroMQ it is one message part.
"""

from __future__ import annotations

import struct

import msgspec

from runner.errors import RunnerError

#: Bound on a frame: the largest accepted body plus overhead.
MAX_FRAME_BYTES = 80 * 1024 * 1024
LENGTH = struct.Struct(">I")


class WireError(RunnerError):
    """A frame, or a message in it, is invalid."""

    code, title = "wire_error", "A peer sent a frame that is not ours"


_encoder = msgspec.msgpack.Encoder()
_frame_decoder = msgspec.msgpack.Decoder(list[bytes])


def pack(messages: list[bytes]) -> bytes:
    """Return a frame of encoded messages."""
    return _encoder.encode(messages)


def unpack(frame: bytes | memoryview) -> list[bytes]:
    """Return the encoded messages of a frame.

    Raises:
        WireError: the bytes are not a frame.
    """
    try:
        return _frame_decoder.decode(frame)
    except msgspec.DecodeError as error:
        raise WireError(f"a frame of {len(frame)} bytes does not decode: {error}") from error


def with_length(frame: bytes) -> bytes:
    """Return the frame in the form that a byte stream carries."""
    return LENGTH.pack(len(frame)) + frame


class FrameBuffer:
    """Cuts a byte stream into frames."""

    __slots__ = ("_data", "_max")

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._data = bytearray()
        self._max = max_bytes

    def feed(self, chunk: bytes) -> list[bytes]:
        """Add bytes and return all frames that are complete now.

        Raises:
            WireError: a length exceeds the bound; the stream can't be used any more.
        """
        data = self._data
        data += chunk
        frames: list[bytes] = []
        at = 0
        while len(data) - at >= 4:
            (length,) = LENGTH.unpack_from(data, at)
            if length > self._max:
                raise WireError(f"a frame announces {length} bytes, the bound is {self._max}")
            if len(data) - at - 4 < length:
                break
            frames.append(bytes(data[at + 4 : at + 4 + length]))
            at += 4 + length
        if at:
            del data[:at]
        return frames
