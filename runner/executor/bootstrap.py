"""Effect: makes a fresh interpreter an executor: bound to its worker, its descriptors out of reach."""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import mmap
import os
import resource
import signal
from typing import NamedTuple, NoReturn

from runner.executor import shared_page

CHANNEL_FD = "JOB_RUNNER_CHANNEL_FD"
PAGE_FD = "JOB_RUNNER_PAGE_FD"
PARENT_PID = "JOB_RUNNER_PARENT_PID"

#: Exit codes. An executor that could not go on for want of its worker.
EXIT_LOST = 71
#: One that must not be used again, after it has said why.
EXIT_UNUSABLE = 72
#: One whose handler could not be loaded.
EXIT_NOT_LOADED = 73
#: One that was brought down by a mistake in our own code.
EXIT_FAILED = 74

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


class Descriptors(NamedTuple):
    """Both high, both closed in programs that user code executes."""

    channel: int
    wake: int


def bind_to_parent() -> None:
    """Die with the worker, whatever user code is doing then."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # It may have died between our start and the line above.
    if os.getppid() != int(os.environ.pop(PARENT_PID, os.getppid())):
        exit_lost()


def take_descriptors() -> Descriptors:
    """The channel, moved where no handler that closes or overwrites low descriptors will hit it, and a
    descriptor by which the main thread wakes the channel thread."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = max(100, min(soft, 1024) - 24)
    channel = _move_above(int(os.environ.pop(CHANNEL_FD)), lowest)
    os.set_blocking(channel, False)
    return Descriptors(channel, _move_above(os.eventfd(0, os.EFD_NONBLOCK), lowest))


def map_page() -> mmap.mmap:
    """The memory shared with the worker; needs no descriptor once it is mapped."""
    fd = int(os.environ.pop(PAGE_FD))
    memory = mmap.mmap(fd, shared_page.SIZE)
    os.close(fd)
    return memory


def set_signals() -> None:
    """Ctrl-C is the coordinator's business; a crash leaves its stack on standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.enable()


def exit_lost() -> NoReturn:
    """The channel is gone, so nothing that we do could be told to anybody."""
    os._exit(EXIT_LOST)


def exit_failed(error: BaseException) -> NoReturn:
    """An error of our own, not of user code: leave its stack on standard error and end."""
    import traceback

    os.write(2, "".join(traceback.format_exception(error)).encode("utf-8", "replace"))
    os._exit(EXIT_FAILED)


def exit_code(error: SystemExit) -> int:
    """The status that a `sys.exit` asks for."""
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def _move_above(fd: int, lowest: int) -> int:
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
    os.close(fd)
    return moved
