"""Effect: keeps room on the disk beside the store's file, which deletions may use when the disk is full."""

from __future__ import annotations

import os
from pathlib import Path

#: The log of a deletion of some hundred jobs.
RESERVE_BYTES = 2 * 1024 * 1024


class DiskReserve:
    """A file that takes up room, until `release` removes it."""

    def __init__(self, store_path: str) -> None:
        self._path = Path(f"{store_path}-reserve")
        #: Released, and not kept again since.
        self.is_released = False

    def keep(self) -> bool:
        """Keep the room; return False if the disk does not have it."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            finally:
                os.close(descriptor)
        except OSError:
            self._path.unlink(missing_ok=True)
            return False
        self.is_released = False
        return True

    def drop(self) -> None:
        """Remove the file: no store is open."""
        self._path.unlink(missing_ok=True)

    def release(self) -> bool:
        """Give the room back to the disk; return False if none was kept."""
        if not self._path.exists():
            return False
        self._path.unlink()
        self.is_released = True
        return True
