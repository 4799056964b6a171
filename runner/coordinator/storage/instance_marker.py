"""Effect: the marker of a data folder: a start finds by it what an earlier server left behind."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import NamedTuple

from runner.coordinator.storage.private_file import replace_private_file
from runner.coordinator.storage.room_wait import is_full
from runner.errors import RefusedStart

ID_BYTES = 6


class InstanceMarker(NamedTuple):
    """The marker, and what the markers of processes begin with that a start must kill."""

    #: The first part of the name of every worker, and so of the marker of every executor.
    marker: str
    orphan_prefixes: tuple[str, ...]


def load_or_create_marker(data_dir: Path) -> InstanceMarker:
    """Return the marker of the folder; create it at the first start.

    It is random and not derived from the path: two containers that share process ids may both have a folder
    at the same path. A copy of the folder gets a marker of its own, as the stored one names the inode. A
    folder that an older version used gets one too, and that version's processes are found by their own
    marker once. The caller holds the lock of the folder, and calls this before it creates anything there.

    Raises:
        RefusedStart: the marker can't be read or stored.
        OSError: the disk is full.
    """
    path = data_dir / "instance"
    try:
        inode = str(data_dir.stat().st_ino)
        stored = path.read_text("ascii", "replace").split() if path.exists() else []
        if len(stored) == 2 and len(stored[0]) == 2 * ID_BYTES and stored[1] == inode:
            return InstanceMarker(f"r{stored[0]}", (f"r{stored[0]}.",))
        instance_id = secrets.token_hex(ID_BYTES)
        is_from_older_version = not stored and (data_dir / "locks").is_dir()
        replace_private_file(path, f"{instance_id} {inode}\n".encode())
    except OSError as error:
        if is_full(error):
            raise
        raise RefusedStart(f"{path} can't be read or written: {error.strerror}") from error
    return InstanceMarker(f"r{instance_id}", (f"{_path_marker(data_dir)}.",) if is_from_older_version else ())


def _path_marker(data_dir: Path) -> str:
    """Return the marker that older versions derived from the path of the folder."""
    return f"r{hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:8]}"
