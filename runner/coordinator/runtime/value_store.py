"""Pure: values besides jobs that survive a restart, as the components that keep them see them."""

from __future__ import annotations

from typing import Protocol


class ValueStore(Protocol):
    """Named values; `value_names` lists the names."""

    def get(self, name: str) -> bytes | None:
        """Return the value of this name; None if there is none."""

    def find_by_prefix(self, prefix: str) -> dict[str, bytes]:
        """Return the values whose names begin with `prefix`, by their full names."""

    def put(self, name: str, value: bytes | None) -> None:
        """Store a value with the next commit; None removes it."""
