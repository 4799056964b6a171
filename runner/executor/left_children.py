"""Effect: finds the child processes of ended attempts that may still write into the output pipes."""

from __future__ import annotations

import os
from collections.abc import Collection

#: Device and inode of an open file.
FileIdentity = tuple[int, int]


class LeftChildren:
    """Whether child processes of earlier attempts share the output pipes of this process.

    Children that were there before the first attempt belong to the handler as a whole.
    """

    __slots__ = ("_are_left", "_known", "_pipes")

    def __init__(self, pipes: Collection[FileIdentity]) -> None:
        self._pipes = pipes
        self._known: frozenset[int] | None = None
        self._are_left = False

    def on_run_started(self) -> None:
        """Take the children that exist before the first attempt as known; later calls change nothing."""
        if self._known is None:
            self._known = frozenset(_child_pids())

    def on_run_ended(self) -> bool | None:
        """Return whether such children are there now; None if that is as before."""
        known = self._known or ()
        are_left = any(pid not in known and self._shares_pipe(pid) for pid in _child_pids())
        if are_left == self._are_left:
            return None
        self._are_left = are_left
        return are_left

    def _shares_pipe(self, pid: int) -> bool:
        for fd in (1, 2):
            try:
                found = os.stat(f"/proc/{pid}/fd/{fd}")
            except OSError:
                # It has ended, or has closed this descriptor.
                continue
            if (found.st_dev, found.st_ino) in self._pipes:
                return True
        return False


def _child_pids() -> list[int]:
    try:
        # One cheap system call for the usual case: no child at all.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    pids: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children") as file:
                pids += map(int, file.read().split())
        except OSError:
            # The thread has ended meanwhile; its children belong to another one now.
            continue
    return pids
