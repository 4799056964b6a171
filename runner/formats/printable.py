"""Pure: text that a terminal shows instead of obeying."""

from __future__ import annotations

import re

#: What a terminal would obey instead of show; tab and line feed stay.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: object) -> str:
    """Text from a handler or a client with terminal control characters taken out."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text).replace("\r\n", "\n"))
