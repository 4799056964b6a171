"""Effect: opens the store that the settings name; a new kind of store is added here."""

from __future__ import annotations

from pathlib import Path

from runner.errors import RunnerError, StoreGone
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


async def save_nameless(access: StoreAccess, gone: StoreGone, epoch: int) -> StoreGone:
    """Save the contents of a file that was removed or replaced; return the error with their new place.

    The open file still holds everything, and vanishes with the last process that has it open.
    """
    try:
        path = await access.save_copy(f"saved-{epoch}")
    except RunnerError as error:
        return StoreGone(f"{gone.message}, and what it held is lost: {error.message}")
    return StoreGone(
        f"{gone.message}. What it held is saved in {path}: take the suffix from its name, remove what files "
        "of that name with -wal and -shm there are, and start again"
    )
