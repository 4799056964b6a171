"""Pure: detects a write-ahead log with commits that SQLite would skip because of damage before them.

SQLite reads a log up to the first frame with a wrong checksum and takes that frame as the end of the log, as
it must after a power cut during a commit. Each commit is synced before the next one begins, so a power cut
leaves at most one commit behind such a frame. If there are more, the log is damaged, and the commits behind
the frame were acknowledged.
"""

from __future__ import annotations

import struct
from functools import cache
from operator import mul

_HEADER, _FRAME = 32, 24
_MAGIC = 0x377F0682
_WORD = 0xFFFFFFFF
#: Bits between two sums in one number: 32 for a word, 32 for its weight and 14 for the number of words.
_SUM_SHIFT_BITS = 80


def is_damaged(log: bytes) -> bool:
    """Return whether SQLite would lose acknowledged commits if it opened a database with this log."""
    if len(log) <= _HEADER or not any(log[:_HEADER]):
        return False
    magic, _, page_bytes = struct.unpack_from(">III", log)
    if magic & ~1 != _MAGIC or not 512 <= page_bytes <= 65_536:
        return True
    order = ">" if magic & 1 else "<"
    sums = _sum(log[:24], (0, 0), order)
    if sums != struct.unpack_from(">II", log, 24):
        return True
    return _commits_after_damage(log, page_bytes, sums, order) > 1


def _commits_after_damage(log: bytes, page_bytes: int, sums: tuple[int, int], order: str) -> int:
    """Return the number of commits behind the first invalid frame, without those of an older log."""
    salts, step = log[16:24], _FRAME + page_bytes
    broken, commits = False, 0
    for offset in range(_HEADER, len(log) - step + 1, step):
        is_own = log[offset + 8 : offset + 16] == salts
        if not broken:
            if is_own:
                sums = _sum(log[offset : offset + 8], sums, order)
                sums = _sum(log[offset + _FRAME : offset + step], sums, order)
            broken = not is_own or sums != struct.unpack_from(">II", log, offset + 16)
        if broken:
            commits += is_own and any(log[offset + 4 : offset + 8])
    return commits


def _sum(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    """Return SQLite's checksum: for each pair (x, y) of words first += x + second, then second += y + first.

    The sums are linear in the words, so that the weights of the words are computed once. A loop over all
    pairs of a log of megabytes would delay each start.
    """
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    weights, (a, b, c, d) = _weights(len(words) // 2)
    total = sum(map(mul, weights, words))
    first, second = sums
    return (total + a * first + b * second) & _WORD, (
        (total >> _SUM_SHIFT_BITS) + c * first + d * second
    ) & _WORD


@cache
def _weights(pairs: int) -> tuple[list[int], tuple[int, int, int, int]]:
    """Return what each word adds to both sums (the second one shifted), and the matrix for earlier sums."""
    weights: list[int] = []
    # Backwards: a pair adds (1, 1) and (0, 1), and every later pair multiplies by ((1, 1), (1, 2)).
    x, y, left, right = (1, 1), (0, 1), (1, 0), (0, 1)
    for _ in range(pairs):
        weights += [y[0] + (y[1] << _SUM_SHIFT_BITS), x[0] + (x[1] << _SUM_SHIFT_BITS)]
        x, y, left, right = _apply_step(x), _apply_step(y), _apply_step(left), _apply_step(right)
    return weights[::-1], (left[0], right[0], left[1], right[1])


def _apply_step(sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    return (first + second) & _WORD, (first + 2 * second) & _WORD
