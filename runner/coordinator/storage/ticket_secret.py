"""Effect: the secret of a data folder, with which tickets are sealed: it outlives the server."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from runner.errors import RefusedStart

SIZE = 32


def folder_secret(data: Path) -> bytes:
    """Random bytes, made at the folder's first start. Who calls holds the folder's lock.

    Raises:
        RefusedStart: they can't be read or kept.
    """
    path = data / "secret"
    try:
        kept = path.read_bytes() if path.exists() else b""
        # Another length: a disk that was full or a power cut left a part of it.
        return kept if len(kept) == SIZE else _make(path)
    except OSError as error:
        raise RefusedStart(f"{path} can't be read or written: {error.strerror}") from error


def ticket_key(secret: bytes, token_sha256: bytes) -> bytes:
    """The key of tickets: another token makes those of the old one worthless, and from a ticket nobody
    can find out a weak token by trying."""
    return hmac.digest(secret, b"ticket" + token_sha256, "sha256")


def _make(path: Path) -> bytes:
    made = secrets.token_bytes(SIZE)
    fresh = path.with_name("secret.new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(made)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return made
