"""Effect: the content of source files: what it is known by, and bytecode that may be of an earlier one."""

from __future__ import annotations

import os
from hashlib import sha256
from importlib.util import cache_from_source


def file_digest(path: str) -> str:
    """What the content is known by; "" where it can't be read."""
    try:
        with open(path, "rb") as file:
            return sha256(file.read()).hexdigest()
    except OSError:
        return ""


def is_unchanged(path: str, known: str) -> bool:
    """Whether the content is the one of that digest; nobody knows of "" what it was."""
    return known != "" and file_digest(path) == known


def drop_bytecode(path: str) -> None:
    """Forget the bytecode of a changed file where Python would take it for that of the new content: it looks
    at no more than the size and the second of the change."""
    try:
        compiled = cache_from_source(path)
        with open(compiled, "rb") as file:
            head = file.read(16)
        stat = os.stat(path)
        second, size = (int.from_bytes(head[at : at + 4], "little") for at in (8, 12))
        if (second, size) == (int(stat.st_mtime) & 0xFFFFFFFF, stat.st_size & 0xFFFFFFFF):
            os.unlink(compiled)
    except (OSError, NotImplementedError):
        # There is none, or somebody else's that we may not touch.
        return
