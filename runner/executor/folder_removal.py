"""Effect: removes a folder with whatever user code has left in it, or the link that is in its place.

Nothing is followed or recursed into: subfolders are moved up into the folder itself and emptied there, each
through a descriptor. So depth, length of paths and links do not matter, and a few descriptors are enough.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

#: How often a folder is emptied: a process that still runs may add to it meanwhile.
ROUNDS = 3
_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC


def remove_folder(path: Path) -> None:
    """Remove a folder and everything in it, as far as that is permitted; never raises an OSError.

    Anything else at this path, such as a link, is removed itself.
    """
    with contextlib.suppress(OSError):
        parent = os.open(path.parent, os.O_RDONLY | _FOLDER)
        try:
            _remove(parent, path.name)
        finally:
            os.close(parent)


def _remove(parent: int, name: str) -> None:
    folder = _unlink_or_open(parent, name)
    if folder is None:
        return
    try:
        for _ in range(ROUNDS):
            _empty(folder)
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=parent)
                return
    finally:
        os.close(folder)


def _empty(root: int) -> None:
    """Remove what is in a folder now."""
    serial = itertools.count()
    names = os.listdir(root)
    while names:
        name = names.pop()
        folder = _unlink_or_open(root, name)
        if folder is None:
            continue
        try:
            for inner in os.listdir(folder):
                if not _unlink(folder, inner):
                    moved = _move_up(folder, inner, root, serial)
                    if moved is not None:
                        names.append(moved)
        finally:
            os.close(folder)
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=root)


def _unlink(folder: int, name: str) -> bool:
    """Remove an entry unless it is a folder; return False for a folder."""
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        return False
    except OSError:
        # It has gone meanwhile, or may not be removed.
        return True
    return True


def _unlink_or_open(parent: int, name: str) -> int | None:
    """Remove an entry that is no folder; return a folder opened, writable even if its mode was not."""
    if _unlink(parent, name):
        return None
    try:
        unread = os.open(name, os.O_PATH | os.O_NOFOLLOW | _FOLDER, dir_fd=parent)
    except OSError:
        return None
    try:
        with contextlib.suppress(OSError):
            os.chmod(f"/proc/self/fd/{unread}", 0o700)
        return os.open(f"/proc/self/fd/{unread}", os.O_RDONLY | _FOLDER)
    except OSError:
        return None
    finally:
        os.close(unread)


def _move_up(folder: int, name: str, root: int, serial: itertools.count[int]) -> str | None:
    """Move a subfolder into the root under a name of its own; return the name, None if it can't be moved."""
    for attempt in range(2):
        moved = f".removed-{next(serial)}-{os.urandom(4).hex()}"
        try:
            os.rename(name, moved, src_dir_fd=folder, dst_dir_fd=root)
        except PermissionError:
            # A folder whose mode forbids writing can't get another parent.
            opened = _unlink_or_open(folder, name) if not attempt else None
            if opened is None:
                return None
            os.close(opened)
        except OSError:
            return None
        else:
            return moved
    return None
