"""Pure: splits the bytes of descriptor 1 or 2 into lines and assigns them to attempts.

Bytes arrive through a pipe and messages through a socket, so their order is unknown. Bytes that certainly
belong to the oldest attempt not yet ended are assigned at once. All others wait for that attempt's end,
where a marker in the stream, if there is one, separates them.
"""

from __future__ import annotations

#: A longer line is split into pieces of this size.
LINE_MAX_BYTES = 8 * 1024
#: Bytes of a stream kept for a crash report.
TAIL_BYTES = 4 * 1024


class OutputStream:
    """One output descriptor of an executor."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dropped_bytes = 0
        self._partial = b""
        #: Bytes of uncertain owner, each with the count of starts at which they were read.
        self._deferred: list[tuple[int, bytes]] = []
        self._tail = b""
        self._stale_markers: list[bytes] = []

    @property
    def tail(self) -> str:
        """Return the last 4 KiB received."""
        return self._tail.decode("utf-8", "replace")

    def update_tail(self, chunk: bytes) -> None:
        """Keep the end of a chunk for `tail`."""
        self._tail = (self._tail + chunk[-TAIL_BYTES:])[-TAIL_BYTES:]

    def clear_tail(self) -> None:
        """Drop the tail after the end of an attempt: it must not appear in the report of another one."""
        self._tail = b"".join(chunk for _, chunk in self._deferred)[-TAIL_BYTES:]

    def feed(self, chunk: bytes) -> list[str]:
        """Add bytes of the current owner; return the complete lines."""
        for marker in [marker for marker in self._stale_markers if marker in chunk]:
            chunk = chunk.replace(marker, b"")
            self._stale_markers.remove(marker)
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        if len(self._partial) > LINE_MAX_BYTES:
            *pieces, self._partial = _cut_line(self._partial)
            return [*_decode_lines(lines), *(piece.decode("utf-8", "replace") for piece in pieces)]
        return _decode_lines(lines)

    def defer(self, chunk: bytes, started: int) -> None:
        """Keep bytes of uncertain owner; `started` is the page's count of starts when they were read."""
        self._deferred.append((started, chunk))

    def split_at_marker(self, marker: bytes) -> list[str] | None:
        """Return all lines before the marker, also an unfinished last one.

        None if the marker has not arrived.
        """
        kept = self._deferred
        before, found, after = b"".join(chunk for _, chunk in kept).partition(marker)
        if not found:
            return None
        after_bytes, self._deferred = len(after), []
        for started, chunk in reversed(kept):
            if after_bytes > 0:
                self._deferred.insert(0, (started, chunk[-after_bytes:]))
                after_bytes -= len(chunk)
        return self.feed(before) + self._flush_partial()

    def finish_attempt(self, ordinal: int) -> list[str]:
        """Return the output of an attempt that ended without a marker: bytes read before the next start."""
        owned = b"".join(chunk for started, chunk in self._deferred if started <= ordinal)
        self._deferred = [(started, chunk) for started, chunk in self._deferred if started > ordinal]
        return self.feed(owned) + self._flush_partial()

    def feed_deferred(self) -> list[str]:
        """Assign deferred bytes to the only owner, which is certain now; return the complete lines."""
        deferred = b"".join(chunk for _, chunk in self._deferred)
        self._deferred.clear()
        return self.feed(deferred) if deferred else []

    def drop_deferred(self) -> None:
        """Drop and count deferred bytes, which belong to no attempt."""
        self.dropped_bytes += sum(len(chunk) for _, chunk in self._deferred) + len(self._partial)
        self._deferred.clear()
        self._partial = b""

    def ignore_marker(self, marker: bytes) -> None:
        """Remove a marker from the output if it arrives after its attempt was finished."""
        self._stale_markers.append(marker)

    @property
    def is_pending(self) -> bool:
        """Return whether there are bytes not yet emitted."""
        return bool(self._deferred or self._partial)

    def _flush_partial(self) -> list[str]:
        rest, self._partial = self._partial, b""
        return _decode_lines([rest]) if rest else []


def _decode_lines(lines: list[bytes]) -> list[str]:
    texts: list[str] = []
    for line in lines:
        if len(line) <= LINE_MAX_BYTES:
            texts.append(line.decode("utf-8", "replace"))
        else:
            texts.extend(piece.decode("utf-8", "replace") for piece in _cut_line(line))
    return texts


def _cut_line(line: bytes) -> list[bytes]:
    """Split a line into pieces of at most LINE_MAX_BYTES, without splitting a UTF-8 character."""
    pieces: list[bytes] = []
    at = 0
    while len(line) - at > LINE_MAX_BYTES:
        end = at + LINE_MAX_BYTES
        while end > at + LINE_MAX_BYTES - 4 and line[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(line[at:end])
        at = end
    pieces.append(line[at:])
    return pieces
