"""Effect: what an executor keeps between jobs, and whether a fresh one should take its place for that."""

from __future__ import annotations

from runner.protocol.worker import LoadExecutor
from runner.worker.processes import process_tree

#: One that keeps more than this part of its limit, and so much of it more than after its first job, is about
#: to be killed in the middle of a job; between two it can be replaced without harm.
FULL_FRACTION, GROWN_FRACTION = 0.8, 0.1


class MemoryBaseline:
    """What is left of each job, against the first."""

    def __init__(self, limit_bytes: int) -> None:
        #: 0: none.
        self.limit_bytes = limit_bytes
        self._first_kept_bytes: int | None = None

    def is_outgrown(self, kept_bytes: int) -> bool:
        """After a job that left so much in use."""
        if self._first_kept_bytes is None or kept_bytes < self._first_kept_bytes:
            self._first_kept_bytes = kept_bytes
        grown = kept_bytes - self._first_kept_bytes  # guard: growth-limit
        return kept_bytes > FULL_FRACTION * self.limit_bytes > 0 and grown > GROWN_FRACTION * self.limit_bytes


class MemoryGrowth:
    """Host memory against its cap, simulated device memory against its grant."""

    def __init__(self, command: LoadExecutor, device_kind: str) -> None:
        self._load_command, self._device_kind = command, device_kind
        self._ram, self._device = MemoryBaseline(0), MemoryBaseline(0)
        self._update_limits()

    def _update_limits(self) -> None:
        """The limits of the order as it stands: its grant may be another now."""
        self._grant_bytes = self._load_command.grant_bytes
        self._ram.limit_bytes = ram_limit(self._load_command, self._device_kind) or 0
        self._device.limit_bytes = self._grant_bytes if self._device_kind == "sim" else 0

    def is_excessive(self, pid: int, allocated_bytes: int) -> bool:
        """After each job; costs nothing where there is no limit."""
        if self._load_command.grant_bytes != self._grant_bytes:
            self._update_limits()
        if self._device.limit_bytes and self._device.is_outgrown(allocated_bytes):
            return True
        limit = self._ram.limit_bytes
        return limit > 0 and self._ram.is_outgrown(
            used_bytes([pid, *process_tree.descendant_pids(pid)], FULL_FRACTION * limit)
        )


def ram_limit(command: LoadExecutor, device_kind: str) -> int | None:
    """The host memory that an executor has; None: any. Of that, a grant may be raised, a cap never."""
    caps = [command.ram_cap_bytes or 0, command.grant_bytes if device_kind == "cpu" else 0]
    return min((cap for cap in caps if cap > 0), default=None)


def used_bytes(pids: list[int], near_bytes: float | None) -> int:
    """Host memory of processes together; exact above `near_bytes`."""
    used = sum(map(process_tree.resident_bytes, pids))
    if near_bytes is not None and used > near_bytes:
        # Pages shared by forked children count once for each in the cheap sum.
        used = sum(map(process_tree.proportional_bytes, pids))
    return used
