"""Effect: measures the memory that an executor retains between jobs, and decides when to replace it."""

from __future__ import annotations

from runner.protocol.worker import LoadExecutor
from runner.worker.processes import process_tree

#: An executor that retains more than FULL_FRACTION of its limit, GROWN_FRACTION of it gained since its first
#: job, would soon be killed during a job; between two jobs it can be replaced without harm.
FULL_FRACTION, GROWN_FRACTION = 0.8, 0.1


class MemoryBaseline:
    """Memory retained after each job, compared with that after the first."""

    def __init__(self, limit_bytes: int) -> None:
        #: Limit on the memory; 0: no limit.
        self.limit_bytes = limit_bytes
        self._first_kept_bytes: int | None = None

    def is_outgrown(self, kept_bytes: int) -> bool:
        """Return whether the memory retained after a job has grown too much; call it once after every job."""
        if self._first_kept_bytes is None or kept_bytes < self._first_kept_bytes:
            self._first_kept_bytes = kept_bytes
        grown = kept_bytes - self._first_kept_bytes  # guard: growth-limit
        return kept_bytes > FULL_FRACTION * self.limit_bytes > 0 and grown > GROWN_FRACTION * self.limit_bytes


class MemoryGrowth:
    """Compares an executor's host memory with its cap, and simulated device memory with its grant."""

    def __init__(self, command: LoadExecutor, device_kind: str) -> None:
        self._load_command, self._device_kind = command, device_kind
        self._ram, self._device = MemoryBaseline(0), MemoryBaseline(0)
        self._update_limits()

    def _update_limits(self) -> None:
        """Update the limits from the load command, whose grant may have changed."""
        self._grant_bytes = self._load_command.grant_bytes
        self._ram.limit_bytes = ram_limit(self._load_command, self._device_kind) or 0
        self._device.limit_bytes = self._grant_bytes if self._device_kind == "sim" else 0

    def is_excessive(self, pid: int, allocated_bytes: int) -> bool:
        """Return whether the executor retains too much; call it after each job.

        Reads nothing without a limit.
        """
        if self._load_command.grant_bytes != self._grant_bytes:
            self._update_limits()
        if self._device.limit_bytes and self._device.is_outgrown(allocated_bytes):
            return True
        limit = self._ram.limit_bytes
        return limit > 0 and self._ram.is_outgrown(
            used_bytes([pid, *process_tree.descendant_pids(pid)], FULL_FRACTION * limit)
        )


def ram_limit(command: LoadExecutor, device_kind: str) -> int | None:
    """Return the executor's limit on host memory in bytes; None: no limit.

    A grant may be raised, a cap never.
    """
    caps = [command.ram_cap_bytes or 0, command.grant_bytes if device_kind == "cpu" else 0]
    return min((cap for cap in caps if cap > 0), default=None)


def used_bytes(pids: list[int], near_bytes: float | None) -> int:
    """Return the host memory of all processes together; exact if it exceeds `near_bytes`.

    Otherwise, and always if that is None, the cheap sum of RSS is returned, an upper bound.
    """
    used = sum(map(process_tree.resident_bytes, pids))
    if near_bytes is not None and used > near_bytes:
        # The RSS counts shared pages of forked children once for each of them: use the PSS.
        used = sum(map(process_tree.proportional_bytes, pids))
    return used
