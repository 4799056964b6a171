"""Effect: opens the store that the settings name; a new kind of store is added here."""

from __future__ import annotations

from pathlib import Path

from runner.stores.sqlite.access import MemoryAccess, SqliteAccess, StoreAccess
from runner.stores.url import sqlite_path


async def open_store(url: str | None, data_dir: Path) -> StoreAccess:
    """Return the store that `url` names; without one, the SQLite file `runner.db` in the data folder.

    Must be called from the main thread (it starts a child, see `child.start_child`).

    Raises:
        RefusedStart: the URL does not name a supported store.
    """
    path = str(data_dir / "runner.db") if url is None else sqlite_path(url)
    if path is None:
        return MemoryAccess()
    access = SqliteAccess(Path(path).absolute())
    await access.start()
    return access
