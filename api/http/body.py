"""Effect: reads request bodies: bounded while they arrive, as strict JSON of plain types."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request

from api.http.problems import JSON, Fault, fault, raise_invalid
from api.validation.json_text import CheckedJson, check_json_text, syntax_fault
from runner.errors import PayloadTooLarge, UnsupportedMediaType
from runner.formats.json_pointer import escape_pointer

#: The front itself parses JSON up to this size, which takes about 20 ms.
INLINE_JSON_MAX_BYTES = 512 * 1024
#: The same for the whole of a bulk request, about 80 ms.
INLINE_BULK_MAX_BYTES = 2 * 1024 * 1024
_decode_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


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


class JobObject(msgspec.Struct, frozen=True):
    """The JSON object of a job. A large input is left as text: the front would parse it for too long."""

    #: All fields, or all but the input.
    fields: dict[str, Any]
    #: Unchecked JSON text; None if the input is one of the fields, or missing.
    input_text: bytes | None = None


def check_json(text: bytes, depth_max: int, at: str = "") -> CheckedJson | list[Fault]:
    """Return the value of a strict JSON text, or its faults with pointers below `at`."""
    found = check_json_text(text, depth_max)
    return found if isinstance(found, CheckedJson) else [fault(at + where, why) for where, why in found]


def check_object(text: bytes, depth_max: int, at: str = "") -> JobObject | list[Fault]:
    """Return the JSON object of a job, or its faults with pointers below `at`.

    The input in a text beyond INLINE_JSON_MAX_BYTES stays text.
    """
    if len(text) <= INLINE_JSON_MAX_BYTES:
        whole = check_json(text, depth_max, at)
        if isinstance(whole, list):
            return whole
        return JobObject(whole.value) if isinstance(whole.value, dict) else [fault(at, "must be an object")]
    try:
        parts = _decode_parts(text)
    except msgspec.ValidationError:
        return [fault(at, "must be an object")]
    except (RecursionError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        where, why = syntax_fault(error, depth_max)
        return [fault(at + where, why)]
    input_text = parts.pop("input", None)
    fields: dict[str, Any] = {}
    for name, part in parts.items():
        checked = check_json(bytes(part), depth_max - 1, f"{at}/{escape_pointer(name[:100])}")
        if isinstance(checked, list):
            return checked
        fields[name] = checked.value
    return JobObject(fields, None if input_text is None else bytes(input_text))


def parse_bulk(text: bytes, depth_max: int) -> list[Any]:
    """Return the jobs of a bulk request; those of a large one are `msgspec.Raw`, JSON text to be checked.

    Raises:
        ValidationFailed: not JSON, not `{"jobs": [...]}`, or another field.
    """
    is_large = len(text) > INLINE_BULK_MAX_BYTES
    try:
        body: Any = _decode_parts(text) if is_large else parse_json(text, depth_max)
        jobs = body.get("jobs") if isinstance(body, dict) else None
        if is_large and jobs is not None:
            jobs = _decode_items(jobs)
    except msgspec.ValidationError:
        body = jobs = None
    except (RecursionError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        where, why = syntax_fault(error, depth_max)
        raise_invalid([fault(where, why)])
    if not isinstance(body, dict) or not isinstance(jobs, list):
        raise_invalid([fault("/jobs", "a list of jobs is required")])
    for key in body:
        if key == "run_id" and (body[key] is None or (is_large and bytes(body[key]) == b"null")):
            continue
        if key == "run_id":
            raise_invalid([fault("/run_id", "not available in this version")])
        if key != "jobs":
            raise_invalid([fault(f"/{key[:100]}", "there is no such field")])
    return jobs


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is larger than {max_bytes} bytes", max_bytes=max_bytes)
