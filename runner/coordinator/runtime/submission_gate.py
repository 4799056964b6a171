"""Pure: whether the server still accepts work; it stops when shutdown begins."""

from __future__ import annotations

from runner.errors import ShuttingDown


class SubmissionGate:
    """Open from the start to the beginning of shutdown."""

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        """Accept no more work."""
        self.is_closed = True

    def check_open(self) -> None:
        """Raise ShuttingDown if the gate is closed."""
        if self.is_closed:
            raise shutting_down_error()


def shutting_down_error() -> ShuttingDown:
    """Make the error of a request that comes after shutdown has begun."""
    return ShuttingDown("the server is shutting down; try again in a moment", retry_after_s=5.0)
