"""Pure: removes or escapes characters that a terminal would interpret."""

from __future__ import annotations

import re

#: Characters that a terminal interprets instead of showing; tab and line feed stay. They are the other
#: control characters (C0 and C1), the controls that reorder text (Unicode Standard Annex 9), the separators
#: of lines and paragraphs, and lone surrogates, which no encoding can write.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff]"
)


def printable(text: object) -> str:
    """Return text from a handler or a client without the characters that a terminal interprets."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text).replace("\r\n", "\n"))


def printable_json(text: str) -> str:
    """Return JSON text of the same value with those characters escaped, such as U+202E as `\\u202e`."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
