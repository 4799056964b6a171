"""Effect: digests of source files, and removal of bytecode that may be of an earlier version."""

from __future__ import annotations

import os
from hashlib import sha256
from importlib.util import cache_from_source


def file_digest(path: str) -> str:
    """Return a digest of the content; "" if the file can't be read."""
    try:
        with open(path, "rb") as file:
            return sha256(file.read()).hexdigest()
    except OSError:
        return ""


def is_unchanged(path: str, known: str) -> bool:
    """Return whether the content has this digest; False for "", an unknown content."""
    return known != "" and file_digest(path) == known


def drop_bytecode(path: str) -> None:
    """Remove the bytecode of a changed file if Python might take it for that of the new content.

    Python compares no more than the size and the second of the change.
    """
    try:
        compiled = cache_from_source(path)
        with open(compiled, "rb") as file:
            head = file.read(16)
        stat = os.stat(path)
        second, size = (int.from_bytes(head[at : at + 4], "little") for at in (8, 12))
        if (second, size) == (int(stat.st_mtime) & 0xFFFFFFFF, stat.st_size & 0xFFFFFFFF):
            os.unlink(compiled)
    except (OSError, NotImplementedError):
        # There is none, or it belongs to another user and can't be removed.
        return
