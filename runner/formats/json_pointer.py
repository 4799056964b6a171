"""Pure: JSON pointers (RFC 6901)."""

from __future__ import annotations


def escape_pointer(name: str | int) -> str:
    """Return a name or index as one step of a JSON pointer."""
    return str(name).replace("~", "~0").replace("/", "~1")
