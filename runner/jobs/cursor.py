"""Pure: the opaque text with which a list continues where its last page ended."""

from __future__ import annotations

import base64

from runner.bounds import INT64_MAX

#: Longest text that is decoded; a number of 64 bits takes 28 characters.
CHARS_MAX = 64


def encode(number: int) -> str:
    """Return the cursor "continue after the job with this order number"."""
    return base64.urlsafe_b64encode(b"n%d" % number).decode().rstrip("=")


def decode(text: str) -> int:
    """Return the order number in a cursor made by `encode`.

    Raises:
        ValueError: the text is not a cursor.
    """
    if len(text) <= CHARS_MAX:
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except ValueError as error:
            raise ValueError(_FOREIGN) from error
        if raw[:1] == b"n" and raw[1:].isdigit() and int(raw[1:]) <= INT64_MAX:
            return int(raw[1:])
    raise ValueError(_FOREIGN)


_FOREIGN = "is not a cursor of this server; use next_cursor of the previous page"
