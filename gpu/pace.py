"""Pure: how long jobs of a time limit truly run: people who ask for the same over-ask by about as much."""

from __future__ import annotations

from gpu.line import JobClass
from gpu.window import Window

#: Fewer runs tell less than the limit does.
RUNS_MIN = 10
#: More kinds are not remembered; the one that was not heard of for longest is forgotten.
KINDS_MAX = 4096

_Kind = tuple[str, str, str, float]


class Pace:
    """The last runs of each handler, model, size and limit. They are not stored: the limits that classes
    carry are good enough until a few have run."""

    def __init__(self) -> None:
        self._runs: dict[_Kind, Window] = {}

    def ran(self, cls: JobClass, run_s: float) -> None:
        """A job ended well after so long."""
        kind = _kind(cls)
        runs = self._runs.pop(kind, None)
        if runs is None and len(self._runs) >= KINDS_MAX:
            del self._runs[next(iter(self._runs))]
        self._runs[kind] = runs = runs or Window()
        runs.add(run_s)

    def run_s(self, cls: JobClass, q: float) -> float | None:
        """In how many seconds the share `q` of such jobs has ended; None where too few have."""
        runs = self._runs.get(_kind(cls))
        return runs.quantile(q) if runs is not None and len(runs) >= RUNS_MIN else None


def _kind(cls: JobClass) -> _Kind:
    return cls.handler, cls.model, cls.size, cls.limit_s
