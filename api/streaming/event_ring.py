"""Pure: the newest events of one job as server-sent events, encoded once for all readers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from runner.formats.timestamps import format_rfc3339
from runner.protocol import front as front_protocol

#: Size kept per subscribed job; a reader that is further behind reads pages from the store.
RING_BYTES = 1024 * 1024
#: Largest single write to a reader, and so the memory that a stalled reader occupies. A larger event is
#: written in slices.
WRITE_BYTES = 64 * 1024

#: A field of the block of the first event: a block of its own would be a nameless event for some clients.
RETRY_FIELD = b"retry: 2000\n"
#: A comment, which clients ignore and which keeps proxies from closing a silent stream.
PING = b": ping\n\n"
StoredEvent = tuple[int, str, bytes]


def encode_event(event: StoredEvent) -> bytes:
    """Return a stored event as SSE; its data is already one line."""
    seq, kind, data = event
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, kind.encode(), data)


def encode_events(events: Iterable[StoredEvent], types: frozenset[str] | None) -> bytes:
    """Return stored events as SSE; only those of `types` (None: all)."""
    return b"".join([encode_event(event) for event in events if types is None or event[1] in types])


def encode_without_id(name: str, data: bytes) -> bytes:
    """Return an event without an id, which does not move a reader's cursor."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data.replace(b"\n", b" ").replace(b"\r", b" "))


def encode_waiting(waiting: front_protocol.JobWaiting) -> bytes:
    """Return how a job waits as a `waiting` event."""
    fields = {
        "job_id": waiting.job_id,
        "at": format_rfc3339(waiting.at),
        "reason": waiting.reason,
        "message": waiting.message,
        "position": waiting.position,
        "eta_s": waiting.eta_s,
    }
    return encode_without_id("waiting", msgspec.json.encode(fields))


def encode_cursor(seq: int) -> bytes:
    """Return bytes that move a reader's Last-Event-ID without an event."""
    return b"id: %d\n\n" % seq


def slices(chunk: bytes) -> Iterator[bytes]:
    """Yield the bytes in slices of at most `WRITE_BYTES`; the chunk itself stays shared by its readers."""
    if 0 < len(chunk) <= WRITE_BYTES:
        yield chunk
        return
    for at in range(0, len(chunk), WRITE_BYTES):
        yield chunk[at : at + WRITE_BYTES]


class EventRing:
    """Consecutive events of one job; beyond `max_bytes` the oldest are dropped."""

    __slots__ = ("_bytes", "_items", "_max_bytes", "_recent_reads", "_types", "first_seq")

    def __init__(self, max_bytes: int = RING_BYTES) -> None:
        self._max_bytes = max_bytes
        self._items: list[bytes] = []
        self._types: list[str] = []
        self._bytes = 0
        #: Sequence number of the first event held; 0 before the first event.
        self.first_seq = 0
        #: Results of the latest reads by their arguments: concurrent readers ask for the same.
        self._recent_reads: dict[tuple[int, frozenset[str] | None], tuple[bytes, int]] = {}

    @property
    def last_seq(self) -> int:
        """Return the sequence number of the last event held; `first_seq` - 1 if the ring is empty."""
        return self.first_seq + len(self._items) - 1

    def add(self, events: list[StoredEvent]) -> None:
        """Append events; skip known ones, and empty the ring first if events are missing in between."""
        for event in events:
            seq = event[0]
            if self._items and seq <= self.last_seq:
                continue
            if not self._items or seq != self.last_seq + 1:
                self._clear(seq)
            encoded = encode_event(event)
            self._items.append(encoded)
            self._types.append(event[1])
            self._bytes += len(encoded)
        self._recent_reads.clear()
        if self._bytes > self._max_bytes:
            self._trim()

    def contains(self, seq: int) -> bool:
        """Return whether the ring holds the event with this sequence number."""
        return bool(self._items) and self.first_seq <= seq <= self.last_seq

    def read_after(
        self, after: int, types: frozenset[str] | None = None, max_bytes: int = WRITE_BYTES
    ) -> tuple[bytes, int]:
        """Return the bytes of events after `after`, and the cursor after them.

        The bytes contain at least one event, then up to `max_bytes`. The ring must hold the event that
        follows `after`.
        """
        key = (after, types)
        found = self._recent_reads.get(key)
        if found is None:
            found = self._recent_reads[key] = self._encode_from(after + 1 - self.first_seq, types, max_bytes)
        return found

    def _encode_from(self, start: int, types: frozenset[str] | None, max_bytes: int) -> tuple[bytes, int]:
        size = 0
        end = start
        for encoded in self._items[start:]:
            if size and size + len(encoded) > max_bytes:
                break
            size += len(encoded)
            end += 1
        items = self._items[start:end]
        if types is not None:
            kinds = self._types[start:end]
            items = [item for item, kind in zip(items, kinds, strict=True) if kind in types]
        return b"".join(items), self.first_seq + end - 1

    def _clear(self, first: int) -> None:
        self._items.clear()
        self._types.clear()
        self._bytes = 0
        self.first_seq = first

    def _trim(self) -> None:
        # Drop a quarter at once, so that a full ring is not shifted for every new event.
        target = self._max_bytes * 3 // 4
        dropped = 0
        while self._bytes > target and dropped < len(self._items) - 1:
            self._bytes -= len(self._items[dropped])
            dropped += 1
        del self._items[:dropped]
        del self._types[:dropped]
        self.first_seq += dropped
