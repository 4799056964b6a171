"""Effect: the secret of a data folder, which signs tickets and outlives the server."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from runner.errors import RefusedStart

SECRET_BYTES = 32


def load_or_create_secret(data_dir: Path) -> bytes:
    """Random bytes, created at the folder's first start. The caller holds the folder's lock.

    Raises:
        RefusedStart: they can't be read or stored.
    """
    path = data_dir / "secret"
    try:
        stored = path.read_bytes() if path.exists() else b""
        # Another length: a full disk or a power cut left a part of it.
        return stored if len(stored) == SECRET_BYTES else _create_secret(path)
    except OSError as error:
        raise RefusedStart(f"{path} can't be read or written: {error.strerror}") from error


def ticket_key(secret: bytes, token_sha256: bytes) -> bytes:
    """Derive the key of tickets: a new token invalidates the tickets of the old one, and a weak token can't
    be found from a ticket by trying."""
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
