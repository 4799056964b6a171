"""Pure: attributes the bytes of a device to executors, as far as its driver's list of processes allows.

The precision differs, and is given as a level:

- `exact`: simulated devices and RAM, where the executors' own figures are exact;
- `processes`: the driver lists our processes with their bytes;
- `reports`: it does not (in containers it lists other process ids, under WSL none), and executors report what
  torch has reserved;
- `totals`: only the device's total is known, so that loads run one by one and are measured by the difference.

A device rises to `processes` with the first of our processes that is seen there, and stays at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

AttributionLevel = Literal["exact", "processes", "reports", "totals"]

#: From the most to the least precise.
ATTRIBUTION_LEVELS: tuple[AttributionLevel, ...] = ("exact", "processes", "reports", "totals")


def lowest_level(levels: Iterable[AttributionLevel]) -> AttributionLevel:
    """Return the least precise of the levels; "exact" where there are none."""
    return max(levels, key=ATTRIBUTION_LEVELS.index, default="exact")


class ProcessOwners:
    """Maps processes to their executors."""

    def __init__(self) -> None:
        self._executors: dict[int, int] = {}
        self._pids: dict[int, frozenset[int]] = {}

    def claim(self, executor: int, pids: Iterable[int]) -> None:
        """Set the processes of an executor; a process id that another one had is taken from it."""
        self._release_pids(executor)
        self._pids[executor] = frozenset(pids)
        for pid in self._pids[executor]:
            self._executors[pid] = executor

    def remove(self, executor: int) -> None:
        """Remove an executor that is gone, with its process ids."""
        self._release_pids(executor)
        self._pids.pop(executor, None)

    def bytes_by_executor(self, processes: Mapping[int, int | None]) -> dict[int, int]:
        """Sum one device's bytes by executor; `processes` maps process ids to bytes (None: unknown).

        An executor with a process of unknown use is left out: a partial sum would look like the whole.
        """
        found: dict[int, int] = {}
        unknown: set[int] = set()
        for pid, nbytes in processes.items():
            executor = self._executors.get(pid)
            if executor is None:
                continue
            if nbytes is None:
                unknown.add(executor)
            else:
                found[executor] = found.get(executor, 0) + nbytes
        return {executor: nbytes for executor, nbytes in found.items() if executor not in unknown}

    def _release_pids(self, executor: int) -> None:
        for pid in self._pids.get(executor, ()):
            if self._executors.get(pid) == executor:
                del self._executors[pid]
