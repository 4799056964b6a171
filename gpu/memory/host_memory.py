"""Pure: when the host runs short of memory, and which idle executors leave for that.

Executors on every device hold host memory. Only where they run on the cpu device is it counted in the ledger,
and idle ones without a grant are bounded by nothing else. So they leave before the kernel has to kill.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MIB = 1024 * 1024
#: The host is short of memory where less than 1/20 of it is available, or less than 256 MiB; on a small host
#: the latter is 1/8 of it at most.
SHORT_SHARE = 20
SHORT_MIN_BYTES = 256 * MIB
SHORT_MAX_SHARE = 8
#: Idle executors leave until this many times the bound is available.
RELIEF_FACTOR = 2
#: Assumed host memory of an executor of which it was not measured.
UNKNOWN_HOST_BYTES = 128 * MIB


@dataclass(frozen=True, slots=True)
class HostMemory:
    """The memory of the host as this process may use it: the machine's, within its control groups."""

    total_bytes: int
    #: What can be used without swapping: the kernel's estimate, or less where a control group allows less.
    available_bytes: int

    @property
    def short_bytes(self) -> int:
        """The host is short of memory while fewer bytes than this are available."""
        return max(self.total_bytes // SHORT_SHARE, min(SHORT_MIN_BYTES, self.total_bytes // SHORT_MAX_SHARE))

    @property
    def lacking_bytes(self) -> int:
        """What should become available: 0 where the host is not short of memory."""
        if self.available_bytes >= self.short_bytes:
            return 0
        return RELIEF_FACTOR * self.short_bytes - self.available_bytes


@dataclass(frozen=True, slots=True)
class IdleHostMemory:
    """The host memory of an executor that idles."""

    executor: int
    #: None where it was not measured.
    host_bytes: int | None
    idle_since: float
    is_pinned: bool


def choose_unloads(memory: HostMemory, idle: Iterable[IdleHostMemory], leaving_bytes: int) -> list[int]:
    """Return the idle executors to unload, in this order: the least recently used first, pinned ones last.

    `leaving_bytes` is what executors hold that leave already. Empty where the host is not short of memory.
    """
    lacking_bytes = memory.lacking_bytes - leaving_bytes
    chosen: list[int] = []
    for each in sorted(idle, key=lambda each: (each.is_pinned, each.idle_since, each.executor)):
        if lacking_bytes <= 0:
            break
        chosen.append(each.executor)
        lacking_bytes -= UNKNOWN_HOST_BYTES if each.host_bytes is None else each.host_bytes
    return chosen
