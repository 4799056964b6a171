"""Effect: `--reload`, for development: watches the files of handlers and reloads them when they change."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from runner.errors import RunnerError

log = logging.getLogger(__name__)

#: Interval of the checks.
POLL_S = 0.5
#: Editors write in steps: nothing is read before the files have been unchanged for this time.
QUIET_S = 0.15

#: Path -> (time of the change in ns, size, inode).
FileStamps = dict[str, tuple[int, int, int]]


class FileWatcher:
    """Reloads when the result of `read_stamps` changes.

    Files are polled: change notifications do not work on every remote or mounted folder.
    """

    def __init__(
        self, read_stamps: Callable[[], Awaitable[FileStamps]], reload: Callable[[], Awaitable[object]]
    ) -> None:
        self._read_stamps = read_stamps
        self._reload = reload

    async def run(self) -> None:
        """Check and reload, until cancelled."""
        # The first pass reloads in any case: files may have changed while the handlers were described.
        stamps: FileStamps | None = None
        while True:
            try:
                current = await self._read_stamps()
                if current != stamps:
                    # Taken before the reload: a change during the reload is found by the next check.
                    stamps = await self._wait_until_quiet(current)
                    await self._reload()
            except RunnerError as refused:
                log.debug("not reloaded: %s", refused.message)
            except Exception:
                # The boundary of one pass: the next one may succeed.
                log.exception("failed to check the files of the handlers for changes")
            await asyncio.sleep(POLL_S)

    async def _wait_until_quiet(self, current: FileStamps) -> FileStamps:
        """Wait until the files have not changed for `QUIET_S`; return their last stamps."""
        while True:
            await asyncio.sleep(QUIET_S)
            again = await self._read_stamps()
            if again == current:
                return current
            current = again


def read_file_stamps(folders: Iterable[str], file: Path | None = None) -> FileStamps:
    """Read the stamps of all Python files in these folders, and of one more file.

    Each folder has an entry too: a folder that is watched only now differs from none, also if its files were
    removed before it was looked at.

    Blocks, so it must not be called on the event loop: a disk may be remote and slow.
    """
    stamps: FileStamps = {}
    for folder in folders:
        stamps[folder] = (0, 0, 0)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".py"):
                        _add_stamp(stamps, entry.path)
        except OSError:
            # The folder is gone, for now: so are its files.
            continue
    if file is not None:
        _add_stamp(stamps, str(file))
    return stamps


def _add_stamp(stamps: FileStamps, path: str) -> None:
    try:
        stat = os.stat(path)
    except OSError:
        # It was removed since, or is a dangling link.
        return
    stamps[path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
