"""Pure: the error for a damaged store file."""

from __future__ import annotations

from runner.errors import StoreCorrupt


def corrupt_file_error(path: str, what: str) -> StoreCorrupt:
    """Return the error for a damaged file, with the damage that was found and the way out."""
    advice = "Put back a copy from a backup, or move the file away to begin without what it holds"
    return StoreCorrupt(f"{path} is damaged ({what}); nothing was changed. {advice}")
