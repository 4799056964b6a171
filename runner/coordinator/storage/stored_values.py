"""Effect: values besides jobs: loaded once at the start, written through the journal."""

from __future__ import annotations

from collections.abc import Mapping

from runner.coordinator.storage.journal import Journal


class StoredValues:
    """The values of the store, with those that the next commits will write."""

    def __init__(self, journal: Journal, loaded: Mapping[str, bytes]) -> None:
        self._journal = journal
        self._values = dict(loaded)

    def get(self, name: str) -> bytes | None:
        """Return the value of this name; None if there is none."""
        return self._values.get(name)

    def find_by_prefix(self, prefix: str) -> dict[str, bytes]:
        """Return the values whose names begin with `prefix`, by their full names."""
        return {name: value for name, value in self._values.items() if name.startswith(prefix)}

    def put(self, name: str, value: bytes | None) -> None:
        """Store a value with the next commit; None removes it."""
        if value is None:
            self._values.pop(name, None)
        else:
            self._values[name] = value
        self._journal.set_value(name, value)
