"""Pure: the messages between a front and a process that checks inputs, one frame each.

The process answers a request by two frames: `Begun` once it has parsed the input and compiled the schema,
then `Checked`. Only the time between the two is validation.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from api.validation.input_checker import InputRules
from runner.protocol.framing import with_length


class CheckInput(msgspec.Struct, array_like=True):
    """The request for what is wrong with an input, and for what the front reads from it."""

    rules: InputRules
    #: JSON text.
    text: bytes
    faults_max: int
    #: Bound on the nesting of a text that is as the client sent it; None if the front has checked the text.
    depth_max: int | None = None


class Begun(msgspec.Struct, array_like=True, tag=1):
    """Validation begins."""


class Checked(msgspec.Struct, array_like=True, tag=2):
    """The faults of an input; if there are none, what the front stores of it."""

    #: Pairs of a JSON pointer inside the input and a message.
    faults: list[tuple[str, str]]
    elapsed_s: float = 0.0
    #: The input as the server writes JSON; empty if the front has it already.
    text: bytes = b""
    #: Model, size and group, see `InputTraits`.
    traits: tuple[str, str, str] = ("", "", "")
    warnings: list[str] = []


_encode = msgspec.msgpack.Encoder().encode
request_decoder = msgspec.msgpack.Decoder(CheckInput)
Reply = TypeVar("Reply", Begun, Checked)


def encode_frame(message: CheckInput | Begun | Checked) -> bytes:
    """Return a message with its length in front."""
    return with_length(_encode(message))


def decode_reply(frame: bytes, kind: type[Reply]) -> Reply:
    """Return the reply in a frame; raise msgspec.DecodeError if it is of another kind."""
    return msgspec.msgpack.decode(frame, type=kind)
