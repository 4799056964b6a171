"""Effect: turns a fresh interpreter into an executor: bound to its worker, its descriptors protected."""

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

#: Environment variables that hold the numbers of inherited descriptors and the pid of the worker.
CHANNEL_FD = "JOB_RUNNER_CHANNEL_FD"
PAGE_FD = "JOB_RUNNER_PAGE_FD"
PARENT_PID = "JOB_RUNNER_PARENT_PID"

#: Exit code of an executor that has lost its worker.
EXIT_LOST = 71
#: Exit code of an executor that must not be used again; its last message says why.
EXIT_UNUSABLE = 72
#: Exit code of an executor whose handler could not be loaded.
EXIT_NOT_LOADED = 73
#: Exit code after a bug in the runner's own code.
EXIT_FAILED = 74

#: What mmap(2) returns after a failure.
_MAP_FAILED = ctypes.c_void_p(-1).value
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


class Descriptors(NamedTuple):
    """Descriptors of the channel to the worker and of the wake-up of the channel thread.

    Both have high numbers and close on exec, so programs that user code starts do not inherit them.
    """

    channel: int
    wake: int


def bind_to_parent() -> None:
    """Have the kernel kill this process when the worker dies, whatever user code is doing then."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # The worker may have died before the kernel knew about the binding.
    if os.getppid() != int(os.environ.pop(PARENT_PID, os.getppid())):
        exit_lost()


def take_descriptors() -> Descriptors:
    """Take the channel and a descriptor by which the main thread wakes the channel thread.

    The channel moves to a high number, out of reach of handlers that close or overwrite low descriptors.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = max(100, min(soft, 1024) - 24)
    channel = _move_above(int(os.environ.pop(CHANNEL_FD)), lowest)
    os.set_blocking(channel, False)
    return Descriptors(channel, _move_above(os.eventfd(0, os.EFD_NONBLOCK), lowest))


def map_page() -> memoryview:
    """Map the memory shared with the worker, and close its descriptor.

    Not by `mmap.mmap`, which keeps a duplicate with the lowest free number: a handler or library that takes
    this number for a descriptor of its own would write over the page.

    Raises:
        OSError: the memory can't be mapped.
    """
    fd = int(os.environ.pop(PAGE_FD))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_ssize_t]
    access = mmap.PROT_READ | mmap.PROT_WRITE
    address = libc.mmap(None, shared_page.SIZE, access, mmap.MAP_SHARED, fd, 0)
    if address == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), "cannot map the page shared with the worker")
    os.close(fd)
    return memoryview((ctypes.c_ubyte * shared_page.SIZE).from_address(address)).cast("B")


def set_signals() -> None:
    """Ignore Ctrl-C, which the coordinator handles, and have a crash print its stack on standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.enable()


def exit_lost() -> NoReturn:
    """Exit because the channel is gone and no result could be reported."""
    os._exit(EXIT_LOST)


def exit_failed(error: BaseException) -> NoReturn:
    """Exit after an error outside user code, with its stack on standard error."""
    import traceback

    os.write(2, "".join(traceback.format_exception(error)).encode("utf-8", "replace"))
    os._exit(EXIT_FAILED)


def exit_code(error: SystemExit) -> int:
    """Return the exit status (0 to 255) that a `sys.exit` asks for; 1 if it was given a text."""
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def _move_above(fd: int, lowest: int) -> int:
    """Move a descriptor to the first free number from `lowest` on; it closes on exec."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
    os.close(fd)
    return moved
