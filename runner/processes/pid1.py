"""Effect: process 1 of a container, with the server as its child.

The kernel makes process 1 the parent of every orphan, which it must reap, and discards every signal to it
without a handler. The server therefore runs in a child: process 1 forwards signals, reaps orphans, and exits
with the status of the server.
"""

from __future__ import annotations

import os
import signal
import sys

#: Signals that a service manager or a user may send to the container.
FORWARDED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}


def fork_from_pid1() -> None:
    """Fork if this is process 1: the child returns, and process 1 exits with the child's status.

    Any other process returns at once. Must be called before threads are started, as a fork copies only the
    calling one.
    """
    if os.getpid() != 1:
        return
    signals = FORWARDED | {signal.SIGCHLD}
    # Blocked before the fork, so that no signal is lost between the fork and the first wait.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child:
        sys.exit(_forward_and_reap(child, signals))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forward_and_reap(child: int, signals: set[signal.Signals]) -> int:
    """Serve as process 1 until the child ends; return its status as a shell does: 128 + N for signal N."""
    while True:
        received = signal.sigwaitinfo(signals)
        if received.si_signo == signal.SIGCHLD:
            status = _reap(child)
            if status is not None:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif received.si_code <= 0:
            # Sent by a process. A signal of the terminal has reached the child too, and a second one would
            # make the server stop at once.
            os.kill(child, received.si_signo)


def _reap(child: int) -> int | None:
    """Reap all ended children; return the wait status of `child` if it is one of them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == child:
            found = status
        if pid == 0:
            return found
