"""Pure: removes characters that a terminal would interpret."""

from __future__ import annotations

import re

#: Characters that a terminal interprets instead of showing; tab and line feed stay.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: object) -> str:
    """Return text from a handler or a client without terminal control characters."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text).replace("\r\n", "\n"))
