"""Effect: the secret of a data folder, with which tickets are sealed: it outlives the server."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from runner.errors import RefusedStart

SECRET_BYTES = 32


def load_or_create_secret(data_dir: Path) -> bytes:
    """Random bytes, made at the folder's first start. Who calls holds the folder's lock.

    Raises:
        RefusedStart: they can't be read or kept.
    """
    path = data_dir / "secret"
    try:
        stored = path.read_bytes() if path.exists() else b""
        # Another length: a disk that was full or a power cut left a part of it.
        return stored if len(stored) == SECRET_BYTES else _create_secret(path)
    except OSError as error:
        raise RefusedStart(f"{path} can't be read or written: {error.strerror}") from error


def ticket_key(secret: bytes, token_sha256: bytes) -> bytes:
    """The key of tickets: another token makes those of the old one worthless, and from a ticket nobody
    can find out a weak token by trying."""
    return hmac.digest(secret, b"ticket" + token_sha256, "sha256")


def _create_secret(path: Path) -> bytes:
    secret = secrets.token_bytes(SECRET_BYTES)
    temporary = path.with_name("secret.new")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return secret
