"""Pure: the sender of a request, as whatever answers it sees it."""

from __future__ import annotations

from typing import Protocol


class Requester(Protocol):
    """Takes the reply to a request; in a running server it is a front."""

    def send(self, message: bytes) -> None:
        """Send an encoded message."""
