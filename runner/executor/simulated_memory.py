"""Effect: the device memory that a handler on a simulated device says it holds."""

from __future__ import annotations

from collections.abc import Callable

from runner.formats import units

_report: Callable[[int], None] | None = None


def allocate(nbytes: int | str) -> None:
    """Say how much simulated device memory this process holds now, all in all (bytes or "6GiB").

    Outside an executor it does nothing, so that handlers can be called from plain tests.

    Raises:
        ValueError: not a size.
    """
    size = units.parse_bytes(nbytes)
    if _report is not None:
        _report(size)


def set_reporter(report: Callable[[int], None]) -> None:
    """Called once by the executor: where figures go."""
    global _report
    _report = report
