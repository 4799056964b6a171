"""Pure: numbers messages that must not be lost and keeps them until the coordinator has made them durable."""

from __future__ import annotations

from collections import deque

#: Unacknowledged messages, and their bytes, above which the worker stops reading its executors.
WINDOW_MESSAGES = 5_000
WINDOW_BYTES = 8 * 1024 * 1024
#: A frame is closed once it exceeds this size.
FRAME_BYTES = 1024 * 1024


class Outbox:
    """Unacknowledged messages; numbers start at 1 and are never reused."""

    def __init__(self) -> None:
        self._sent: deque[bytes] = deque()
        self._unsent: deque[bytes] = deque()
        #: Number of the oldest message kept.
        self._first_seq = 1
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._sent) + len(self._unsent)

    @property
    def last_seq(self) -> int:
        """Return the number of the newest message; 0 before the first."""
        return self._first_seq + len(self) - 1

    @property
    def is_full(self) -> bool:
        """Return whether the window is exceeded, in messages or bytes."""
        return self.nbytes > WINDOW_BYTES or len(self) > WINDOW_MESSAGES

    @property
    def has_unsent(self) -> bool:
        """Return whether a message has not been sent on this connection."""
        return bool(self._unsent)

    def add(self, message: bytes) -> None:
        """Add a message under the next number."""
        self._unsent.append(message)
        self.nbytes += len(message)

    def peek(self) -> tuple[int, list[bytes]]:
        """Return the number of the first unsent message, and as many unsent messages as fit into a frame."""
        chosen: list[bytes] = []
        size = 0
        for message in self._unsent:
            chosen.append(message)
            size += len(message)
            if size > FRAME_BYTES:
                break
        return self._first_seq + len(self._sent), chosen

    def mark_sent(self, count: int) -> None:
        """Mark the first `count` unsent messages as sent."""
        if count == len(self._unsent):
            self._sent.extend(self._unsent)
            self._unsent.clear()
            return
        for _ in range(count):
            self._sent.append(self._unsent.popleft())

    def acknowledge(self, seq: int) -> None:
        """Drop messages up to `seq`, which are durable, even those that were to be sent again."""
        while self._first_seq <= seq and (self._sent or self._unsent):
            message = self._sent.popleft() if self._sent else self._unsent.popleft()
            self.nbytes -= len(message)
            self._first_seq += 1

    def rewind(self) -> None:
        """Mark all unacknowledged messages as unsent, for a new connection."""
        self._sent.extend(self._unsent)
        self._unsent, self._sent = self._sent, deque()

    def unacknowledged_messages(self) -> list[bytes]:
        """Return the unacknowledged messages, oldest first."""
        return [*self._sent, *self._unsent]
