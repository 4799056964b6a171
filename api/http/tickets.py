"""Pure: tickets for streams: who may read what until when, signed, so that any front can check it alone."""

from __future__ import annotations

import base64
import hmac
import struct

from runner.errors import Unauthorized

#: A browser's EventSource reconnects by itself with the address that it was given, so a ticket has to live
#: as long as a page may want to come back, not only until it has connected.
TICKET_S = 3600

_EXPIRY = struct.Struct(">Q")
_SIGNATURE_BYTES = 32


class Tickets:
    """Makes tickets and checks them. Whoever knows `key` can do both."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, expires_at: int, job_id: str | None) -> str:
        """A ticket for one job's stream, or for all streams, up to `until` (UTC epoch seconds)."""
        body = _EXPIRY.pack(expires_at) + (job_id or "").encode()
        return base64.urlsafe_b64encode(self._sign(body) + body).rstrip(b"=").decode()

    def check(self, ticket: str, job_id: str | None, now: float) -> None:
        """Whether it opens this job's stream (None: a stream that is of no single job) at this time.

        Raises:
            Unauthorized: with the reason; of a forged one nothing is told.
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
        # Wrong alphabet or length, and text that is not ASCII.
        return b""
