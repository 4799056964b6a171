"""Effect: finds the threads that an ended attempt has left at work, whose output belongs to no later one."""

from __future__ import annotations

import os
import sys
import threading
from types import FrameType

#: Folders whose code is not the handler's own: the standard library, runner and installed packages.
_LIBRARIES = (
    os.path.dirname(os.path.abspath(os.__file__)) + os.sep,
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    "<frozen ",
)
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class LeftThreads:
    """The threads that earlier attempts have left at work.

    Threads that were there before the first attempt belong to the handler as a whole, and so does a thread of
    a pool that waits for its next task: neither runs code of the handler at an attempt's end.
    """

    __slots__ = ("_at_work", "_known", "_known_count")

    def __init__(self) -> None:
        self._known: frozenset[threading.Thread] | None = None
        self._known_count = 0
        #: By identifier, which a later thread may get again.
        self._at_work: dict[int, threading.Thread] = {}

    def on_run_started(self) -> None:
        """Take the threads that exist before the first attempt as known; later calls change nothing."""
        if self._known is None:
            self._known = frozenset(threading.enumerate())
            self._known_count = len(self._known)

    def on_run_ended(self) -> None:
        """Find the threads that are at work now."""
        if threading.active_count() <= self._known_count and not self._at_work:
            return
        known, frames = self._known or (), sys._current_frames()
        self._at_work = {
            thread.ident: thread
            for thread in threading.enumerate()
            if thread.ident is not None and thread not in known and _runs_own_code(frames.get(thread.ident))
        }

    def is_current(self) -> bool:
        """Return whether the calling thread is one of them."""
        if not self._at_work:
            return False
        left = self._at_work.get(threading.get_ident())
        return left is not None and threading.current_thread() is left


def _runs_own_code(frame: FrameType | None) -> bool:
    """Return whether a thread has code on its stack that is neither a library's nor runner's."""
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_LIBRARIES) and not any(part in file for part in _INSTALLED):
            return True
        frame = frame.f_back
    return False
