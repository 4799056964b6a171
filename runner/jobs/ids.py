"""Effect: ids that sort by their creation time (UUIDv7, RFC 9562), from clock and kernel randomness."""

from __future__ import annotations

import os
import re
import threading
import time

#: 12 bits `rand_a` and 62 bits `rand_b`: the bits beside time, version and variant.
_RANDOM_BITS = 74
_FORM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOW_62 = (1 << 62) - 1
#: Ids per system call for randomness: one call per id would cost more than the rest of making it.
_IDS_PER_REFILL = 512
_BYTES_PER_ID = 10


def uuid7(now_ms: int, random_bytes: bytes) -> str:
    """Return the UUIDv7 of a time as text: 36 characters, lower case.

    `now_ms` is UTC epoch milliseconds (48 bits); of `random_bytes` (at least 10) 74 bits are used.
    """
    return _text(now_ms, int.from_bytes(random_bytes[:_BYTES_PER_ID], "big") >> 6)


class IdSource:
    """Makes ids, each greater than the one before, even if the clock stands still or steps back.

    Safe to share between threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = 0
        self._random = 0
        self._pool = b""
        self._pool_offset = 0

    def new(self, now_ms: int) -> str:
        """Return the next id; `now_ms` is UTC epoch milliseconds."""
        with self._lock:
            bits = self._draw_bits()
            if now_ms > self._last_ms:
                self._last_ms = now_ms
                # Leave the top bit free, so that steps within one millisecond do not overflow.
                self._random = bits >> 1
            else:
                # A random step of up to 2**32 keeps the next id unguessable and the order strict.
                self._random += 1 + (bits & 0xFFFFFFFF)
                if self._random >> _RANDOM_BITS:
                    self._last_ms += 1
                    self._random = bits >> 1
            return _text(self._last_ms, self._random)

    def _draw_bits(self) -> int:
        if self._pool_offset >= len(self._pool):
            self._pool = os.urandom(_IDS_PER_REFILL * _BYTES_PER_ID)
            self._pool_offset = 0
        at = self._pool_offset
        self._pool_offset = at + _BYTES_PER_ID
        return int.from_bytes(self._pool[at : at + _BYTES_PER_ID], "big") >> 6

    def reset_after_fork(self) -> None:
        """Drop prefetched randomness: a forked child must not return its parent's next ids."""
        self._lock = threading.Lock()
        self._pool = b""
        self._pool_offset = 0


_source = IdSource()
os.register_at_fork(after_in_child=_source.reset_after_fork)


def new_id() -> str:
    """Return a UUIDv7 of the current time, greater than all earlier ones of this process."""
    return _source.new(time.time_ns() // 1_000_000)


def is_id(text: str) -> bool:
    """Return whether a text has the form of an id."""
    return _FORM.fullmatch(text) is not None


def _text(now_ms: int, random: int) -> str:
    value = (now_ms << 80) | (0x7 << 76) | ((random >> 62) << 64) | (0b10 << 62) | (random & _LOW_62)
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
