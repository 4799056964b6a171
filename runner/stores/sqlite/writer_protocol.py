"""Pure: requests of a coordinator to its writer process, and the replies, over one stream.

Each message is preceded by its length as in `runner.protocol.framing`. Replies come in the order of the
requests.
"""

from __future__ import annotations

import msgspec

from runner.errors import Fenced, RefusedStart, RunnerError, StoreCorrupt, StoreUnavailable
from runner.protocol.framing import LENGTH
from runner.stores.store import WriteBatch


class TakeEpoch(msgspec.Struct, array_like=True, tag=1):
    """Answered by the epoch as `value`."""


class Commit(msgspec.Struct, array_like=True, tag=2):
    """Answered, once durable, by the number of stale updates so far as `value`."""

    epoch: int
    batch: WriteBatch


class WriterReply(msgspec.Struct, array_like=True):
    """`code` is empty, or the code of the error that `message` describes."""

    code: str = ""
    message: str = ""
    value: int = 0


Request = TakeEpoch | Commit

_ERRORS: dict[str, type[RunnerError]] = {
    error.code: error for error in (StoreUnavailable, StoreCorrupt, Fenced, RefusedStart, RunnerError)
}
_encoder = msgspec.msgpack.Encoder()
request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
reply_decoder = msgspec.msgpack.Decoder(WriterReply)


def encode_frame(message: Request | WriterReply) -> bytearray:
    """Return the message as the stream carries it; it is encoded behind its length to avoid a copy."""
    frame = bytearray(256)
    _encoder.encode_into(message, frame, LENGTH.size)
    LENGTH.pack_into(frame, 0, len(frame) - LENGTH.size)
    return frame


def reply_value(reply: WriterReply) -> int:
    """Return the reply's value.

    Raises:
        StoreUnavailable, StoreCorrupt, Fenced, RefusedStart: the error in the writer.
    """
    if reply.code:
        raise _ERRORS.get(reply.code, RunnerError)(reply.message)
    return reply.value


def error_reply(error: RunnerError) -> WriterReply:
    """Return the reply that raises the same error on the other side."""
    return WriterReply(code=error.code, message=error.message)
