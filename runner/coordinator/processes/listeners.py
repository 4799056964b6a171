"""Effect: the sockets on which fronts listen: the TCP port, and a Unix socket that is removed at the end."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner.errors import RefusedStart

#: The fronts of a server that was just killed may still hold its socket for a moment.
LIVE_WAIT_S = 5.0
RETRY_S = 0.05


class UnixListener:
    """A listening Unix socket at `path`, which only this user may open (mode 0600)."""

    def __init__(self, path: Path, *, backlog: int, live_wait_s: float = LIVE_WAIT_S) -> None:
        """Bind the socket; replace that of a server that has died.

        Raises:
            RefusedStart: another server listens there, also after `live_wait_s`; something else than a socket
                has this path; or the path can't be bound.
        """
        self.path = path
        deadline_mono = time.monotonic() + live_wait_s
        while (bound := self._try_bind(backlog)) is None:
            if time.monotonic() > deadline_mono:
                raise RefusedStart(f"another server listens on {path}; stop it, or choose another --uds")
            time.sleep(RETRY_S)
        self.socket = bound
        self._inode = os.stat(path).st_ino

    @property
    def url(self) -> str:
        """The address by which clients reach the server over this socket."""
        return f"unix://{self.path}"

    def close(self) -> None:
        """Remove the socket's file, unless it is another one by now, and close the socket."""
        # In this order: while this socket listens, no other server takes its file for a dead one.
        if self.path.exists() and os.stat(self.path).st_ino == self._inode:
            self.path.unlink()
        self.socket.close()

    def _try_bind(self, backlog: int) -> socket.socket | None:
        """Return the listening socket, None while another process listens at the path or prepares to."""
        try:
            # Two servers that start at once must not remove each other's socket as a dead one.
            with _locked_folder(self.path.parent):
                if not _remove_dead(self.path):
                    return None
                return _bind(self.path, backlog)
        except BlockingIOError:
            return None
        except OSError as error:
            raise RefusedStart(
                f"--uds {self.path} can't be bound ({error.strerror or error}); "
                "choose a path of at most 107 bytes in a folder that you may write to"
            ) from error


def _remove_dead(path: Path) -> bool:
    """Remove the socket of a dead server; return False if a process listens on it.

    Raises:
        RefusedStart: the path is not a socket.
    """
    try:
        mode = os.stat(path, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return True
    if not stat.S_ISSOCK(mode):
        raise RefusedStart(f"--uds {path} exists and is no socket; remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        refused = asking.connect_ex(str(path)) == errno.ECONNREFUSED
    if refused:
        path.unlink()
    return refused


def _bind(path: Path, backlog: int) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # By umask, not by a later chmod: no other user can connect in between.
    previous = os.umask(0o177)
    try:
        listening.bind(str(path))
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(previous)
    return listening


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which needs no file of its own. Raises BlockingIOError while it is held."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


@dataclass(slots=True)
class Listeners:
    """The sockets on which the fronts of a server accept connections."""

    tcp: socket.socket
    unix: UnixListener | None = None

    @property
    def sockets(self) -> list[socket.socket]:
        """The sockets that every front inherits."""
        return [self.tcp] if self.unix is None else [self.tcp, self.unix.socket]

    @property
    def urls(self) -> list[str]:
        """The addresses by which clients reach the server, that of the TCP port first."""
        host, port = self.tcp.getsockname()[:2]
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
        return [url] if self.unix is None else [url, self.unix.url]

    def close(self) -> None:
        """Close both sockets and remove the file of the Unix socket."""
        self.tcp.close()
        if self.unix is not None:
            self.unix.close()
