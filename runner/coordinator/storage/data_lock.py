"""Effect: the lock of a data folder: one coordinator at a time, and who it is."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from runner.errors import RefusedStart


class LockHolder(msgspec.Struct):
    """What the lock file tells people and programs about who holds it."""

    pid: int
    url: str = ""
    runtime: str = ""
    epoch: int = 0


class DataLock:
    """flock on DATA/lock. The kernel lets go of it when the process ends, however it ends.

    The file may be deleted by hand, and a second coordinator may then start: the store's epoch is the
    fence that stops the first one.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "lock"
        self._fd = -1

    def acquire(self) -> LockHolder | None:
        """Take the lock; who held it last, if that one ended without a word.

        Raises:
            RefusedStart: somebody holds it; the message names the holder.
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
        """Write who holds the lock."""
        document = msgspec.json.encode(holder)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, document, 0)

    def release(self) -> None:
        """Let go; the file stays, so that nobody locks a name that is about to vanish."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def read_holder(data_dir: Path) -> LockHolder | None:
    """Who holds the folder now; pid 0 if it did not say. None: nobody does."""
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
