"""Pure: signed tickets for streams, which any front can check on its own."""

from __future__ import annotations

import base64
import hmac
import struct

from runner.errors import Unauthorized

#: A browser's EventSource reconnects by itself with its original address, so a ticket must live as long as
#: a page may want to reconnect, not only until the first connection.
TICKET_S = 3600

_EXPIRY = struct.Struct(">Q")
_SIGNATURE_BYTES = 32


class Tickets:
    """Issues and checks tickets. Anyone with `key` can do both."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, expires_at: int, job_id: str | None) -> str:
        """Return a ticket for one job or all streams, valid until `expires_at` (UTC epoch seconds)."""
        body = _EXPIRY.pack(expires_at) + (job_id or "").encode()
        return base64.urlsafe_b64encode(self._sign(body) + body).rstrip(b"=").decode()

    def check(self, ticket: str, job_id: str | None, now: float) -> None:
        """Check that it opens this job's stream (None: a stream of all jobs) at this time.

        Raises:
            Unauthorized: with the reason; a forged ticket gets no details.
        """
        raw = _decode(ticket)
        signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if len(body) < _EXPIRY.size or not hmac.compare_digest(signature, self._sign(body)):
            raise Unauthorized("the ticket is not one of this server's")
        if _EXPIRY.unpack_from(body)[0] < now:
            raise Unauthorized("the ticket has expired; POST /v1/tickets gives a new one")
        scope = body[_EXPIRY.size :].decode()
        if scope and scope != job_id:
            raise Unauthorized("the ticket is for the stream of another job")

    def _sign(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")


def _decode(ticket: str) -> bytes:
    try:
        return base64.b64decode(ticket + "=" * (-len(ticket) % 4), altchars=b"-_", validate=True)
    except ValueError:
        # Wrong alphabet or length, or text that is not ASCII.
        return b""
