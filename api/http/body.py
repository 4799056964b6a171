"""Effect: reads request bodies: bounded while they arrive, as strict JSON of plain types."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request

from api.http.problems import JSON, Fault, escape_pointer, fault, raise_invalid
from runner.errors import PayloadTooLarge, UnsupportedMediaType

INT_MIN, INT_MAX = -(2**63), 2**64 - 1
#: An integer beyond 64 bits has at least this many digits: a text without such a run needs no check.
_LONG_DIGITS = re.compile(rb"[0-9]{19}")
_AS_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_decode = msgspec.json.Decoder().decode


async def read_json(request: Request, *, max_bytes: int, depth_max: int) -> Any:
    """Return the body as one JSON value.

    Raises:
        UnsupportedMediaType: the body is compressed or not declared as JSON.
        PayloadTooLarge: more than `max_bytes`.
        ValidationFailed: invalid JSON, nested deeper than `depth_max`, or an integer beyond 64 bits.
    """
    require_type(request, JSON)
    return parse_json(await read_body(request, max_bytes), depth_max)


async def read_optional_object(request: Request, *, max_bytes: int, depth_max: int) -> dict[str, Any]:
    """Return the body as an object; `{}` without a body. Raises as `read_json`.

    The content type is checked even without a body: a browser's form that posts nothing still sends its own.
    """
    if "content-type" in request.headers:
        require_type(request, JSON)
    body = await read_body(request, max_bytes)
    if not body:
        return {}
    require_type(request, JSON)
    value = parse_json(body, depth_max)
    if not isinstance(value, dict):
        raise_invalid([fault("", "must be an object")])
    return value


def require_type(request: Request, *allowed: str) -> str:
    """Return the media type of the body, one of `allowed`; compressed bodies are refused.

    Raises UnsupportedMediaType.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(
            f"Content-Encoding {encoding!r} is not supported; send the body uncompressed"
        )
    named = request.headers.get("content-type", "")
    if named in allowed:
        return named
    media_type, _, parameters = named.partition(";")
    media_type = media_type.strip().lower()
    charset = re.search(r"charset\s*=\s*\"?([^\s\";]+)", parameters, re.IGNORECASE)
    if media_type not in allowed or (charset and charset[1].lower() not in ("utf-8", "utf8")):
        raise UnsupportedMediaType(f"Content-Type must be {' or '.join(allowed)} (in UTF-8)")
    return media_type


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the whole body; raise PayloadTooLarge as soon as it exceeds the limit, even without a length."""
    announced = request.headers.get("content-length", "0")
    if not announced.isdigit() or int(announced[:20]) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect()
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def parse_json(text: bytes, depth_max: int, at: str = "") -> Any:
    """Parse one strict JSON value; `at` is the JSON pointer to it in the request.

    Raises:
        ValidationFailed: not JSON, nested too deeply, or an integer beyond 64 bits.
    """
    faults = check_json(text, depth_max, at)
    if isinstance(faults, list):
        raise_invalid(faults)
    return faults.value


class CheckedJson(msgspec.Struct, frozen=True):
    """A JSON value that has passed all checks."""

    value: Any


def check_json(text: bytes, depth_max: int, at: str = "") -> CheckedJson | list[Fault]:
    """Return the value of a strict JSON text, or its faults with pointers below `at`."""
    try:
        value = _decode(text)
    except RecursionError:
        return [_too_deep(at, depth_max)]
    except UnicodeDecodeError:
        return [fault(at, "is not valid UTF-8")]
    except msgspec.MsgspecError as error:
        return [fault(at, f"is not valid JSON: {error}")]
    if text.count(b"[") + text.count(b"{") > depth_max and deeper_than(text, depth_max):
        return [_too_deep(at, depth_max)]
    if _LONG_DIGITS.search(text):
        found = _integers_beyond(value, at)
        if found:
            return found
    return CheckedJson(value)


def deeper_than(text: bytes, depth_max: int) -> bool:
    """Return whether valid JSON text nests deeper than `depth_max`, without walking it in Python."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Treat braces as brackets: they match, because the text has been decoded.
    bare = b"".join(text.split(b'"')[::2]).translate(_AS_BRACKETS, _NOT_BRACKETS)
    # Each pass removes the innermost pairs, so nothing is left of depth d after d passes.
    for _ in range(depth_max):
        if not bare:
            return False
        bare = bare.replace(b"[]", b"")
    return bool(bare)


def _integers_beyond(value: Any, at: str) -> list[Fault]:
    """Return faults for integers beyond 64 bits.

    Uses a stack of its own, since depth is bounded but the size of a value is not.
    """
    found: list[Fault] = []
    stack: list[tuple[str, Any]] = [(at, value)]
    while stack and len(found) < 10:
        pointer, item = stack.pop()
        if isinstance(item, dict):
            stack.extend((f"{pointer}/{escape_pointer(key)}", inner) for key, inner in item.items())
        elif isinstance(item, list):
            stack.extend((f"{pointer}/{index}", inner) for index, inner in enumerate(item))
        elif isinstance(item, int) and not INT_MIN <= item <= INT_MAX:
            found.append(fault(pointer, "is an integer beyond 64 bits"))
    return found


def _too_deep(at: str, depth_max: int) -> Fault:
    return fault(at, f"is nested deeper than {depth_max}")


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is larger than {max_bytes} bytes", max_bytes=max_bytes)
