"""Effect: the lock of a data folder, held by one coordinator at a time, and the identity of its holder."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

import msgspec

from runner.errors import RefusedStart

log = logging.getLogger(__name__)


class LockHolder(msgspec.Struct):
    """The holder of a data folder: the content of the lock file, as JSON.

    Only `pid` is known at first; the others follow once the server listens and has taken its epoch.
    """

    pid: int
    #: Address of the server.
    url: str = ""
    #: Folder of its sockets.
    runtime: str = ""
    epoch: int = 0


class DataLock:
    """An flock on DATA/lock, which the kernel releases at the end of the process, whatever ends it.

    If the file is deleted by hand, a second coordinator can start. The epoch of the store then fences the
    first one.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "lock"
        self._fd = -1

    def acquire(self) -> LockHolder | None:
        """Acquire the lock and return the previous holder, if that ended without a release.

        Raises:
            RefusedStart: another process holds it; the message names the holder.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # guard: data-folder-lock
        except BlockingIOError as error:
            holder = _decode_holder(fd)
            os.close(fd)
            raise RefusedStart(
                f"{self._path.parent} is in use by {_describe_holder(holder)}; "
                "stop that one or give another --data-dir"
            ) from error
        self._fd = fd
        previous = _decode_holder(fd)
        self.write_holder(LockHolder(os.getpid()))
        return previous

    def write_holder(self, holder: LockHolder) -> None:
        """Write the holder into the lock file, for messages; on a full disk the file names nobody."""
        document = msgspec.json.encode(holder)
        os.ftruncate(self._fd, 0)
        try:
            os.pwrite(self._fd, document, 0)
        except OSError as error:
            log.warning("failed to write who holds %s: %s", self._path, error)

    def release(self) -> None:
        """Release the lock; the file stays: a process that has opened it must not lock a removed file."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def read_holder(data_dir: Path) -> LockHolder | None:
    """Return the current holder of the folder: None if there is none, pid 0 if the file does not name it."""
    try:
        fd = os.open(data_dir / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _decode_holder(fd) or LockHolder(0)
    else:
        return None
    finally:
        os.close(fd)


def _decode_holder(fd: int) -> LockHolder | None:
    try:
        return msgspec.json.decode(os.pread(fd, 4096, 0), type=LockHolder)
    except msgspec.DecodeError:
        return None


def _describe_holder(holder: LockHolder | None) -> str:
    if holder is None:
        return "another runner"
    address = f" at {holder.url}" if holder.url else ""
    return f"the runner with pid {holder.pid}{address}"
