"""Pure: how much of a device a process takes before its first tensor: measured, and remembered by kind.

The context of CUDA, its kernels and its libraries stand outside of what torch counts. Their size differs from
250 to 700 MiB by card, driver and build of torch, and grows as kernels are loaded, so the smallest that was
seen is the floor under every executor of that kind.
"""

from __future__ import annotations

from collections.abc import Mapping

#: A smaller one is news only by more than this.
MIN_CHANGE_BYTES = 1024 * 1024


class ContextOverhead:
    """By the kind of device (its name and driver) and the version of torch."""

    def __init__(self) -> None:
        self._minimums: dict[str, dict[str, int]] = {}

    def record(self, kind: str, torch: str, nbytes: int) -> bool:
        """One was measured; False where that says nothing new."""
        known = self._minimums.get(kind, {}).get(torch)
        if nbytes < 0 or (known is not None and nbytes > known - MIN_CHANGE_BYTES):
            return False
        self._minimums.setdefault(kind, {})[torch] = nbytes
        return True

    def minimum_bytes(self, kind: str, torch: str | None = None) -> int | None:
        """What a context takes at least; None where none was measured. Without a version of torch the
        largest of those that are known."""
        minimums = self._minimums.get(kind, {})
        return max(minimums.values(), default=None) if torch is None else minimums.get(torch)

    def dumps(self) -> dict[str, dict[str, int]]:
        """Kind to version of torch to bytes, to be stored."""
        return {kind: dict(floors) for kind, floors in self._minimums.items()}

    @classmethod
    def loads(cls, data: Mapping[str, Mapping[str, int]]) -> ContextOverhead:
        """Those that `dumps` gave."""
        contexts = cls()
        contexts._minimums = {kind: dict(floors) for kind, floors in data.items()}
        return contexts
