"""Pure: requests of a coordinator to its writer process, and the replies, over one stream.

Each message is preceded by its length as in `runner.protocol.framing`. Replies come in the order of the
requests.
"""

from __future__ import annotations

import msgspec

from runner.errors import Fenced, RefusedStart, RunnerError, StoreCorrupt, StoreFull, StoreUnavailable
from runner.protocol.framing import LENGTH
from runner.stores.store import WriteBatch


class TakeEpoch(msgspec.Struct, array_like=True, tag=1):
    """Request to prepare the file and begin a new epoch, which the reply has as `value`."""


class Commit(msgspec.Struct, array_like=True, tag=2):
    """Request to commit a batch. The reply comes once the batch is durable, with the total of stale updates
    as `value`."""

    epoch: int
    batch: WriteBatch


class SaveCopy(msgspec.Struct, array_like=True, tag=3):
    """Request to write all that was committed to a new file at `path`."""

    path: str


class WriterReply(msgspec.Struct, array_like=True):
    """The reply to a request: a value, or the error with this class and message."""

    error: str = ""
    message: str = ""
    value: int = 0


Request = TakeEpoch | Commit | SaveCopy

#: By the names of their classes: some share a code.
_ERRORS: dict[str, type[RunnerError]] = {
    error.__name__: error
    for error in (StoreUnavailable, StoreFull, StoreCorrupt, Fenced, RefusedStart, RunnerError)
}
_encoder = msgspec.msgpack.Encoder()
request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
reply_decoder = msgspec.msgpack.Decoder(WriterReply)


def encode_frame(message: Request | WriterReply) -> bytearray:
    """Return a message with its length before it; it is encoded in place, which saves a copy."""
    frame = bytearray(256)
    _encoder.encode_into(message, frame, LENGTH.size)
    LENGTH.pack_into(frame, 0, len(frame) - LENGTH.size)
    return frame


def reply_value(reply: WriterReply) -> int:
    """Return the reply's value.

    Raises:
        StoreUnavailable, StoreFull, StoreCorrupt, Fenced, RefusedStart: the writer replied with this error.
    """
    if reply.error:
        raise _ERRORS.get(reply.error, RunnerError)(reply.message)
    return reply.value


def error_reply(error: RunnerError) -> WriterReply:
    """Return the reply from which `reply_value` raises the same error."""
    return WriterReply(error=type(error).__name__, message=error.message)
