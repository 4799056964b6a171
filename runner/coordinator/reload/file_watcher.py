"""Effect: for development: looks at the files of the handlers and has them reloaded when they change."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from runner.errors import RunnerError

log = logging.getLogger(__name__)

LOOK_S = 0.5
#: Editors write in steps: nothing is read before the files have been quiet for so long.
QUIET_S = 0.15

#: Path -> (time of the change in ns, size, inode).
Seen = dict[str, tuple[int, int, int]]


class Watcher:
    """Reloads when what `look` gives is not what it was."""

    def __init__(self, look: Callable[[], Awaitable[Seen]], reload: Callable[[], Awaitable[object]]) -> None:
        self._look = look
        self._reload = reload

    async def run(self) -> None:
        """Look and reload, until cancelled."""
        # The first turn reloads in any case: something may have changed while the handlers were described.
        seen: Seen | None = None
        while True:
            try:
                now = await self._look()
                if now != seen:
                    # Taken before the reload: what changes meanwhile is found by the next look.
                    seen = await self._quiet(now)
                    await self._reload()
            except RunnerError as refused:
                log.debug("not reloaded: %s", refused.message)
            except Exception:
                # The boundary of one turn: the next save may fare better.
                log.exception("the files of the handlers could not be watched")
            await asyncio.sleep(LOOK_S)

    async def _quiet(self, now: Seen) -> Seen:
        while True:
            await asyncio.sleep(QUIET_S)
            again = await self._look()
            if again == now:
                return now
            now = again


def look(folders: Iterable[str], file: Path | None = None) -> Seen:
    """All Python files of these folders, and one more file, as they are now. Not for the loop: a disk may be
    far away, and slow."""
    seen: Seen = {}
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".py"):
                        _note(seen, entry.path)
        except OSError:
            # The folder is gone, for now: so are its files.
            continue
    if file is not None:
        _note(seen, str(file))
    return seen


def _note(seen: Seen, path: str) -> None:
    try:
        stat = os.stat(path)
    except OSError:
        # It was removed since, or is a link to nothing.
        return
    seen[path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
