"""Pure: what to do about executors that exceed their grant, and about devices that are short of memory.

An executor that is over its grant in two sweeps gets a larger grant where its devices have free bytes, and
the larger need is learned. Where they have none, that executor is killed, never its neighbour. Where the
figures are exact there is no tolerance and one sweep is enough. A ceiling (`strict`, or a cap on host memory)
is never raised.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Literal

from gpu.memory.attribution import AttributionLevel
from gpu.memory.ledger import Ledger
from gpu.scheduling.resident_executor import ResidentExecutor

MIB = 1024 * 1024
#: Contexts grow as kernels are loaded, and readings are taken at different moments.
TOLERANCE_BYTES, TOLERANCE_SHARE = 128 * MIB, 0.05
SWEEPS = 2

OveruseAction = Literal["raise", "kill"]


def tolerance_bytes(grant_bytes: int, level: AttributionLevel) -> int:
    """Return the bytes by which an executor may exceed its grant: 5 %, at least 128 MiB; 0 if exact."""
    return 0 if level == "exact" else max(TOLERANCE_BYTES, int(grant_bytes * TOLERANCE_SHARE))


class OveruseTracker:
    """Counts for how many sweeps in a row each executor has exceeded its grant."""

    def __init__(self) -> None:
        self._sweeps: dict[int, int] = {}

    def record_sweep(
        self, executor: int, used_bytes: int | None, grant_bytes: int, level: AttributionLevel
    ) -> bool:
        """Record one sweep; return whether the caller must act on the executor.

        `used_bytes` is its use on the device where it uses most, None where that is unknown; an executor
        without a grant (0) is never over it.
        """
        limit = grant_bytes + tolerance_bytes(grant_bytes, level)
        if used_bytes is None or grant_bytes <= 0 or used_bytes <= limit:
            self._sweeps.pop(executor, None)
            return False
        self._sweeps[executor] = self._sweeps.get(executor, 0) + 1
        return level == "exact" or self._sweeps[executor] >= SWEEPS

    def reset(self, executor: int) -> None:
        """Start counting again after the overuse was resolved."""
        self._sweeps.pop(executor, None)

    def retain(self, executors: Container[int]) -> None:
        """Forget all executors except these: the others are gone."""
        for executor in [each for each in self._sweeps if each not in executors]:
            del self._sweeps[executor]


def resolve_overuse(ledger: Ledger, executor: int, *, is_ceiling: bool) -> OveruseAction:
    """Decide what to do with an executor over its grant; with "raise" the ledger has raised the grant."""
    used = ledger.usage.observed_bytes(executor) or 0
    if not is_ceiling and ledger.raise_grant(executor, used):
        return "raise"
    return "kill"


def choose_evictions(short_bytes: int, idle: Iterable[tuple[ResidentExecutor, int]]) -> list[int]:
    """Return the idle executors to evict where other programs took granted bytes.

    `idle` are executors with their charges, the longest idle first. As many are evicted as it takes, or all
    of them where that is not enough. Pinned executors stay, and so do those without a charge, which would
    free nothing.
    """
    evicted: list[int] = []
    for resident, charge in idle:
        if short_bytes <= 0:
            break
        if charge > 0 and resident.grant_bytes > 0 and not resident.is_pinned:
            evicted.append(resident.executor)
            short_bytes -= charge
    return evicted
