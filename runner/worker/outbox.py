"""Pure: the messages that must not be lost, numbered, kept until the coordinator has made them durable."""

from __future__ import annotations

from collections import deque

#: Unacknowledged messages, and their bytes, above which the worker stops reading its executors.
WINDOW_MESSAGES = 5_000
WINDOW_BYTES = 8 * 1024 * 1024
#: A frame is closed with the message that passes this.
FRAME_BYTES = 1024 * 1024


class Outbox:
    """Numbers run from 1 and are never given twice."""

    def __init__(self) -> None:
        self._sent: deque[bytes] = deque()
        self._unsent: deque[bytes] = deque()
        #: Number of the oldest message that is kept.
        self._first_seq = 1
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._sent) + len(self._unsent)

    @property
    def last_seq(self) -> int:
        """The number of the newest message; 0: there was none."""
        return self._first_seq + len(self) - 1

    @property
    def is_full(self) -> bool:
        """Whether the window is passed."""
        return self.nbytes > WINDOW_BYTES or len(self) > WINDOW_MESSAGES

    @property
    def has_unsent(self) -> bool:
        """Whether something was not sent yet on this link."""
        return bool(self._unsent)

    def add(self, message: bytes) -> None:
        """The next number is its."""
        self._unsent.append(message)
        self.nbytes += len(message)

    def peek(self) -> tuple[int, list[bytes]]:
        """The next messages to send, as many as go into a frame, and the number of the first."""
        chosen: list[bytes] = []
        size = 0
        for message in self._unsent:
            chosen.append(message)
            size += len(message)
            if size > FRAME_BYTES:
                break
        return self._first_seq + len(self._sent), chosen

    def mark_sent(self, count: int) -> None:
        """The first `count` fresh ones went out."""
        if count == len(self._unsent):
            self._sent.extend(self._unsent)
            self._unsent.clear()
            return
        for _ in range(count):
            self._sent.append(self._unsent.popleft())

    def acknowledge(self, seq: int) -> None:
        """Everything up to `seq` is durable; also what waits to be sent a second time."""
        while self._first_seq <= seq and (self._sent or self._unsent):
            message = self._sent.popleft() if self._sent else self._unsent.popleft()
            self.nbytes -= len(message)
            self._first_seq += 1

    def rewind(self) -> None:
        """The link is new: all that is not acknowledged goes out again."""
        self._sent.extend(self._unsent)
        self._unsent, self._sent = self._sent, deque()

    def unacknowledged_messages(self) -> list[bytes]:
        """What is not acknowledged, oldest first."""
        return [*self._sent, *self._unsent]
