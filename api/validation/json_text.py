"""Pure: strict JSON of plain types: UTF-8, bounded depth, integers of 64 bits."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from runner.bounds import INT_MAX, INT_MIN
from runner.formats.json_pointer import escape_pointer

#: A JSON pointer inside a value, and what is wrong there.
InputFault = tuple[str, str]
#: An integer beyond 64 bits has at least this many digits: a text without such a run needs no check.
_LONG_DIGITS = re.compile(rb"[0-9]{19,}")
_DIGITS_MAX = 20
_MINUS = ord("-")
#: Characters before and after digits that are part of a float.
_BEFORE, _AFTER = frozenset(b".eE+"), frozenset(b".eE")
_FAULTS_MAX = 10
_AS_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_decode = msgspec.json.Decoder().decode


class CheckedJson(msgspec.Struct, frozen=True):
    """A JSON value that has passed all checks."""

    value: Any


def check_json_text(text: bytes, depth_max: int) -> CheckedJson | list[InputFault]:
    """Return the value of a strict JSON text, or its faults."""
    try:
        value = _decode(text)
    except (RecursionError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        return [syntax_fault(error, depth_max)]
    if text.count(b"[") + text.count(b"{") > depth_max and deeper_than(text, depth_max):
        return [_too_deep(depth_max)]
    if _LONG_DIGITS.search(text) and _has_integer_beyond(text):
        return _integers_beyond(value)
    return CheckedJson(value)


def syntax_fault(error: Exception, depth_max: int) -> InputFault:
    """Return the fault for an error of the decoder."""
    if isinstance(error, RecursionError):
        return _too_deep(depth_max)
    if isinstance(error, UnicodeDecodeError):
        return "", "is not valid UTF-8"
    return "", f"is not valid JSON: {error}"


def deeper_than(text: bytes, depth_max: int) -> bool:
    """Return whether valid JSON text nests deeper than `depth_max`, without walking it in Python."""
    # Treat braces as brackets: they match, because the text has been decoded.
    bare = _without_strings(text).translate(_AS_BRACKETS, _NOT_BRACKETS)
    # Each pass removes the innermost pairs, so nothing is left of depth d after d passes.
    for _ in range(depth_max):
        if not bare:
            return False
        bare = bare.replace(b"[]", b"")
    return bool(bare)


def _without_strings(text: bytes) -> bytes:
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(text.split(b'"')[::2])


def _has_integer_beyond(text: bytes) -> bool:
    """Return whether valid JSON text has an integer beyond 64 bits, without walking its value."""
    bare = _without_strings(text)
    for found in _LONG_DIGITS.finditer(bare):
        start, end = found.span()
        if start and bare[start - 1] == _MINUS:
            start -= 1
        if (start and bare[start - 1] in _BEFORE) or (end < len(bare) and bare[end] in _AFTER):
            continue
        if end - start > _DIGITS_MAX or not INT_MIN <= int(bare[start:end]) <= INT_MAX:
            return True
    return False


def _integers_beyond(value: Any) -> list[InputFault]:
    """Return faults for integers beyond 64 bits.

    Uses a stack of its own, since depth is bounded but the size of a value is not.
    """
    found: list[InputFault] = []
    stack: list[tuple[str, Any]] = [("", value)]
    while stack and len(found) < _FAULTS_MAX:
        pointer, item = stack.pop()
        if isinstance(item, dict | list):
            for step, inner in item.items() if isinstance(item, dict) else enumerate(item):
                # Pointers are made for what can hold a fault alone: a value may have millions of items.
                if isinstance(inner, dict | list) or (
                    isinstance(inner, int) and not INT_MIN <= inner <= INT_MAX
                ):
                    stack.append((f"{pointer}/{escape_pointer(step)}", inner))
        elif isinstance(item, int) and not INT_MIN <= item <= INT_MAX:
            found.append((pointer, "is an integer beyond 64 bits"))
    return found


def _too_deep(depth_max: int) -> InputFault:
    return "", f"is nested deeper than {depth_max}"
