"""Pure: the memory of a CUDA context before the first tensor, measured by kind of device and torch.

The CUDA context, its kernels and its libraries are not part of what torch counts. Their size ranges from 250
to 700 MiB by GPU, driver and build of torch, and grows as kernels are loaded. So the smallest one seen is the
minimum for every executor of that kind.
"""

from __future__ import annotations

from collections.abc import Mapping

#: A smaller measurement is recorded only where it differs by more than this.
MIN_CHANGE_BYTES = 1024 * 1024


class ContextOverhead:
    """The smallest context by kind of device (its name and driver) and version of torch."""

    def __init__(self) -> None:
        self._minimums: dict[str, dict[str, int]] = {}

    def record(self, kind: str, torch: str, nbytes: int) -> bool:
        """Record a measurement; False where it changes nothing."""
        known = self._minimums.get(kind, {}).get(torch)
        if nbytes < 0 or (known is not None and nbytes > known - MIN_CHANGE_BYTES):
            return False
        self._minimums.setdefault(kind, {})[torch] = nbytes
        return True

    def minimum_bytes(self, kind: str, torch: str | None = None) -> int | None:
        """Return the smallest known context; None where none was measured.

        Without a version of torch it is the largest of the known ones.
        """
        minimums = self._minimums.get(kind, {})
        return max(minimums.values(), default=None) if torch is None else minimums.get(torch)

    def dumps(self) -> dict[str, dict[str, int]]:
        """Return the bytes by kind and version of torch, for storage."""
        return {kind: dict(minimums) for kind, minimums in self._minimums.items()}

    @classmethod
    def loads(cls, data: Mapping[str, Mapping[str, int]]) -> ContextOverhead:
        """Restore what `dumps` returned."""
        contexts = cls()
        contexts._minimums = {kind: dict(minimums) for kind, minimums in data.items()}
        return contexts
