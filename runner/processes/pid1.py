"""Effect: process 1 of a container, with the server as its child.

Process 1 gets every orphan and must reap it, and a signal that it has no handler for does not reach it. So
the server runs in a child: process 1 forwards signals, reaps, and exits with the server's status.
"""

from __future__ import annotations

import os
import signal
import sys

#: Signals that a service manager or a user may send.
FORWARDED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}


def fork_from_pid1() -> None:
    """Continue in a child if this is process 1; return in the child, or at once in any other process.

    Must be called before there are threads.
    """
    if os.getpid() != 1:
        return
    signals = FORWARDED | {signal.SIGCHLD}
    # Blocked before the fork, so that no signal is missed between it and the first wait.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child:
        sys.exit(_forward_and_reap(child, signals))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forward_and_reap(child: int, signals: set[signal.Signals]) -> int:
    while True:
        received = signal.sigwaitinfo(signals)
        if received.si_signo == signal.SIGCHLD:
            status = _reap(child)
            if status is not None:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif received.si_code <= 0:
            # Sent by a process. Terminal signals have reached the child too, and two would mean "at once".
            os.kill(child, received.si_signo)


def _reap(child: int) -> int | None:
    """Reap all ended children; return the status of `child` if it was among them."""
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
