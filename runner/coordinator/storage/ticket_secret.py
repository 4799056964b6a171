"""Effect: the secret of a data folder, which signs tickets and outlives the server."""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path

from runner.coordinator.storage.private_file import replace_private_file
from runner.coordinator.storage.room_wait import is_full
from runner.errors import RefusedStart

SECRET_BYTES = 32


def load_or_create_secret(data_dir: Path) -> bytes:
    """Return the secret of the folder, `SECRET_BYTES` random bytes; create it at the first start.

    The caller holds the lock of the folder.

    Raises:
        RefusedStart: the secret can't be read or stored.
        OSError: the disk is full.
    """
    path = data_dir / "secret"
    try:
        stored = path.read_bytes() if path.exists() else b""
        # A file of another length is a part of a secret, left by a full disk or a power cut.
        return stored if len(stored) == SECRET_BYTES else _create_secret(path)
    except OSError as error:
        if is_full(error):
            raise
        raise RefusedStart(f"{path} can't be read or written: {error.strerror}") from error


def ticket_key(secret: bytes, token_sha256: bytes) -> bytes:
    """Return the key that signs tickets, derived from the folder's secret and the hash of the token.

    A new token thereby invalidates the tickets of the old one, and the secret keeps a weak token from being
    found by trying tokens against a ticket.
    """
    return hmac.digest(secret, b"ticket" + token_sha256, "sha256")


def _create_secret(path: Path) -> bytes:
    secret = secrets.token_bytes(SECRET_BYTES)
    replace_private_file(path, secret)
    return secret
