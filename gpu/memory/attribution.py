"""Pure: whose the bytes of a device are, as far as its driver's list of processes tells.

How much can be told differs, and is told as a level:

- `exact`: simulated devices and RAM, where executors' own figures are the truth;
- `processes`: the driver names our processes with their bytes;
- `reports`: it does not (in containers it names others' numbers, under WSL none), and executors tell what
  torch has reserved;
- `totals`: there is only the device's total, so that loads go one by one and the difference tells.

A device rises to `processes` with the first process of ours that is seen there, and stays at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

AttributionLevel = Literal["exact", "processes", "reports", "totals"]

#: From the most to the least that is known.
ATTRIBUTION_LEVELS: tuple[AttributionLevel, ...] = ("exact", "processes", "reports", "totals")


def lowest_level(levels: Iterable[AttributionLevel]) -> AttributionLevel:
    """The level of the device of which least is known."""
    return max(levels, key=ATTRIBUTION_LEVELS.index, default="exact")


class ProcessOwners:
    """Which processes belong to which executor."""

    def __init__(self) -> None:
        self._executors: dict[int, int] = {}
        self._pids: dict[int, frozenset[int]] = {}

    def claim(self, executor: int, pids: Iterable[int]) -> None:
        """These are all its processes now; a number that another one had is no longer its."""
        self._release_pids(executor)
        self._pids[executor] = frozenset(pids)
        for pid in self._pids[executor]:
            self._executors[pid] = executor

    def remove(self, executor: int) -> None:
        """The executor and its bytes are gone."""
        self._release_pids(executor)
        self._pids.pop(executor, None)

    def bytes_by_executor(self, processes: Mapping[int, int | None]) -> dict[int, int]:
        """Executor to its bytes, of one device's processes (None: the driver does not tell its bytes).

        An executor of which one process can't be told has no figure: a part of the sum would look like
        the whole.
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
