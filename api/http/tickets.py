"""Pure: signed tickets for streams, which every front can check on its own."""

from __future__ import annotations

import base64
import hmac
import struct

from runner.errors import Unauthorized

#: Lifetime of a ticket, in seconds. A browser's EventSource reconnects to its original URL, so the ticket
#: must outlive the page's reconnects, not only the first connection.
TICKET_S = 3600

_EXPIRY = struct.Struct(">Q")
_SIGNATURE_BYTES = 32


class Tickets:
    """Issues and checks tickets; all fronts of a server share `key`."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, expires_at: int, job_id: str | None) -> str:
        """Return a ticket for the stream of one job (None: all streams).

        It is valid until `expires_at` (UTC epoch seconds).
        """
        body = _EXPIRY.pack(expires_at) + (job_id or "").encode()
        return base64.urlsafe_b64encode(self._sign(body) + body).rstrip(b"=").decode()

    def check(self, ticket: str, job_id: str | None, now: float) -> None:
        """Check that the ticket is valid at `now` (UTC epoch seconds) for this job's stream (None: all jobs).

        Raises:
            Unauthorized: with the reason; a forged ticket gets no details.
        """
        raw = _decode(ticket)
        signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if len(body) < _EXPIRY.size or not hmac.compare_digest(signature, self._sign(body)):
            raise Unauthorized("the ticket was not issued by this server")
        if _EXPIRY.unpack_from(body)[0] < now:
            raise Unauthorized("the ticket has expired; get a new one by POST /v1/tickets")
        scope = body[_EXPIRY.size :].decode()
        if scope and scope != job_id:
            raise Unauthorized("the ticket is for the stream of another job")

    def _sign(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")


def _decode(ticket: str) -> bytes:
    try:
        return base64.b64decode(ticket + "=" * (-len(ticket) % 4), altchars=b"-_", validate=True)
    except ValueError:
        # Not base64 at all; an empty text fails the check of the signature.
        return b""
