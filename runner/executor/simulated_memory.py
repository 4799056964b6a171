"""Effect: the memory on a simulated device that a handler declares as used."""

from __future__ import annotations

from collections.abc import Callable

from runner.formats import units

_report: Callable[[int], None] | None = None


def allocate(nbytes: int | str) -> None:
    """Declare the total of simulated device memory that this process uses now (bytes or "6GiB").

    Does nothing outside an executor, so that plain tests can call handlers.

    Raises:
        ValueError: the value is not a size.
    """
    size = units.parse_bytes(nbytes)
    if _report is not None:
        _report(size)


def set_reporter(report: Callable[[int], None]) -> None:
    """Set the function that reports the bytes; called once by the executor."""
    global _report
    _report = report
