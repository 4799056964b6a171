"""Effect: digests of source files, and removal of bytecode that may belong to an earlier version."""

from __future__ import annotations

import os
from hashlib import sha256
from importlib.util import cache_from_source


def file_digest(path: str) -> str:
    """Return a hexadecimal digest of the file's content; "" if it can't be read."""
    try:
        with open(path, "rb") as file:
            return sha256(file.read()).hexdigest()
    except OSError:
        return ""


def is_unchanged(path: str, known: str) -> bool:
    """Return whether the file's content has the digest `known`; False for "", which stands for unknown."""
    return known != "" and file_digest(path) == known


def drop_bytecode(path: str) -> None:
    """Remove a changed file's bytecode if Python might use it for the new content.

    Python compares only the size and the modification time in whole seconds.
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
        # There is no bytecode, or it belongs to another user and can't be removed.
        return
