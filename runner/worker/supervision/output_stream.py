"""Pure: what an executor wrote to descriptor 1 or 2, cut into lines and given to its attempts.

The bytes come through a pipe and the messages through a socket, so their order is not known: bytes read
while it is certain that they are of the oldest attempt not yet ended are its own at once; all others wait
for that attempt's end, where a marker in the stream, if there is one, parts them.
"""

from __future__ import annotations

#: A longer line is cut into pieces of this size.
LINE_MAX_BYTES = 8 * 1024
#: What is kept of a stream for the report of a death.
TAIL_BYTES = 4 * 1024


class Stream:
    """One descriptor of one executor."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dropped_bytes = 0
        self._partial = b""
        #: Bytes of uncertain owner, with the count of starts at which they were read.
        self._held: list[tuple[int, bytes]] = []
        self._tail = b""
        self._stale: list[bytes] = []

    @property
    def tail(self) -> str:
        """The last 4 KiB that came."""
        return self._tail.decode("utf-8", "replace")

    def remember(self, chunk: bytes) -> None:
        """Keep its end for `tail`."""
        self._tail = (self._tail + chunk[-TAIL_BYTES:])[-TAIL_BYTES:]

    def forget(self) -> None:
        """An attempt has ended: what it said is nobody else's last word."""
        self._tail = b"".join(chunk for _, chunk in self._held)[-TAIL_BYTES:]

    def own(self, chunk: bytes) -> list[str]:
        """Bytes of the owner; gives the lines that are complete."""
        for marker in [marker for marker in self._stale if marker in chunk]:
            chunk = chunk.replace(marker, b"")
            self._stale.remove(marker)
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        if len(self._partial) > LINE_MAX_BYTES:
            *pieces, self._partial = _pieces(self._partial)
            return [*_texts(lines), *(piece.decode("utf-8", "replace") for piece in pieces)]
        return _texts(lines)

    def hold(self, chunk: bytes, started: int) -> None:
        """Bytes of uncertain owner."""
        self._held.append((started, chunk))

    def split(self, marker: bytes) -> list[str] | None:
        """All lines before the marker, the last one with or without its end; None: it was not seen yet."""
        kept = self._held
        before, found, after = b"".join(chunk for _, chunk in kept).partition(marker)
        if not found:
            return None
        left, self._held = len(after), []
        for started, chunk in reversed(kept):
            if left > 0:
                self._held.insert(0, (started, chunk[-left:]))
                left -= len(chunk)
        return self.own(before) + self._rest()

    def end(self, ordinal: int) -> list[str]:
        """The owner ended without a marker: what was read before a later one started is its own."""
        mine = b"".join(chunk for started, chunk in self._held if started <= ordinal)
        self._held = [(started, chunk) for started, chunk in self._held if started > ordinal]
        return self.own(mine) + self._rest()

    def settle(self) -> list[str]:
        """There is one owner again and no doubt: what was held back is its own."""
        held = b"".join(chunk for _, chunk in self._held)
        self._held.clear()
        return self.own(held) if held else []

    def drop(self) -> None:
        """Nobody owns what was held back."""
        self.dropped_bytes += sum(len(chunk) for _, chunk in self._held) + len(self._partial)
        self._held.clear()
        self._partial = b""

    def ignore(self, marker: bytes) -> None:
        """Nobody waits for this marker any more; it is no output if it still comes."""
        self._stale.append(marker)

    @property
    def is_pending(self) -> bool:
        """Whether there are bytes that were not given out."""
        return bool(self._held or self._partial)

    def _rest(self) -> list[str]:
        rest, self._partial = self._partial, b""
        return _texts([rest]) if rest else []


def _texts(lines: list[bytes]) -> list[str]:
    texts: list[str] = []
    for line in lines:
        if len(line) <= LINE_MAX_BYTES:
            texts.append(line.decode("utf-8", "replace"))
        else:
            texts.extend(piece.decode("utf-8", "replace") for piece in _pieces(line))
    return texts


def _pieces(line: bytes) -> list[bytes]:
    """Pieces of at most the line's bound that don't cut a UTF-8 character."""
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
