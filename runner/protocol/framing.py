"""Pure: packs messages into a frame, and frames into a byte stream.

A frame is the msgpack list of *encoded* messages (bytes each), so that a worker forwards an executor's
messages without decoding their bodies. In a byte stream a frame is preceded by its length as an unsigned
32-bit big-endian integer; in ZeroMQ it is one message of as many parts as its size needs.

Frames have a bound by construction: senders group messages into frames of about `FRAME_BYTES`, and what can
make a single message larger has a bound of its own (`SETTING_MAX_BYTES`, `BATCH_INPUT_BYTES`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import msgspec

from runner.errors import RunnerError

_MIB = 1024 * 1024
#: A frame is closed before it exceeds this size; a single larger message has a frame of its own.
FRAME_BYTES = 4 * _MIB
#: Largest part of a frame in ZeroMQ, which refuses to receive a larger one.
PART_MAX_BYTES = 4 * _MIB
#: Upper bound of the settings for the sizes of a request body and of an output: a job with both is a message.
SETTING_MAX_BYTES = 64 * _MIB
#: Bytes of the inputs of one batch, which is one message, at most; its first input alone may be larger.
BATCH_INPUT_BYTES = 256 * _MIB
#: Largest frame that a receiver takes: more than the largest message, so only a faulty peer exceeds it.
MAX_FRAME_BYTES = 512 * _MIB
LENGTH = struct.Struct(">I")


class WireError(RunnerError):
    """A frame, or a message in it, is invalid."""

    code, title = "wire_error", "A peer sent an invalid frame"


_encoder = msgspec.msgpack.Encoder()
_frame_decoder = msgspec.msgpack.Decoder(list[bytes])


def pack(messages: list[bytes]) -> bytes:
    """Return a frame of encoded messages, without its length."""
    return _encoder.encode(messages)


def group(messages: Iterable[bytes], max_bytes: int = FRAME_BYTES) -> Iterator[list[bytes]]:
    """Yield the messages in order, in lists of at most `max_bytes` or of one message each."""
    chosen: list[bytes] = []
    size = 0
    for message in messages:
        if chosen and size + len(message) > max_bytes:
            yield chosen
            chosen, size = [], 0
        chosen.append(message)
        size += len(message)
    if chosen:
        yield chosen


def split(frame: bytes) -> list[bytes | memoryview]:
    """Return the parts, of at most `PART_MAX_BYTES` each, in which ZeroMQ carries a frame."""
    if len(frame) <= PART_MAX_BYTES:
        return [frame]
    view = memoryview(frame)
    return [view[at : at + PART_MAX_BYTES] for at in range(0, len(frame), PART_MAX_BYTES)]


def join(parts: list[bytes]) -> bytes:
    """Return the frame that arrived in these parts.

    Raises:
        WireError: the parts are larger than a frame may be, or there are none.
    """
    size = sum(map(len, parts))
    if not parts or size > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {size} bytes in {len(parts)} parts; the limit is {MAX_FRAME_BYTES}")
    return parts[0] if len(parts) == 1 else b"".join(parts)


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
