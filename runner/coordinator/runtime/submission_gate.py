"""Pure: whether the server still accepts work; it stops when shutdown begins."""

from __future__ import annotations

from runner.errors import RunnerError, ShuttingDown


class SubmissionGate:
    """Open from the start to the beginning of shutdown."""

    def __init__(self) -> None:
        self.is_closed = False
        self._error: RunnerError | None = None

    def close(self, error: RunnerError | None = None) -> None:
        """Accept no more work; `error` says why if it is not the shutdown. The first reason stays."""
        self._error = self._error or error
        self.is_closed = True

    def check_open(self) -> None:
        """Raise ShuttingDown, or the error that the gate was closed with, if the gate is closed."""
        if self._error is not None:
            raise self._error
        if self.is_closed:
            raise shutting_down_error()


def shutting_down_error() -> ShuttingDown:
    """Make the error of a request that comes after shutdown has begun."""
    return ShuttingDown("the server is shutting down; try again in a moment", retry_after_s=5.0)
