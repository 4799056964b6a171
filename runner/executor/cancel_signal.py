"""Effect: raises JobCancelled in the main thread while it runs user code, and only then."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Protocol

from runner.handlers.exceptions import JobCancelled

SIGNAL = signal.SIGUSR1
#: Shortest time between two checks of the installed signal handler, which cost a quarter of an empty attempt.
CHECK_NS = 1_000_000


class Cancellable(Protocol):
    """An attempt or a batch that can be interrupted."""

    #: JobCancelled must be raised in the main thread.
    raise_requested: bool

    @property
    def reason(self) -> str:
        """Return why it was cancelled."""


class CancelSignal:
    """Armed while user code runs; `with cancel_signal:` marks sections that must not be interrupted.

    A section entered in another thread costs nothing: signal handlers run in the main thread only.
    """

    __slots__ = ("_armed", "_checked_ns", "_depth", "_main", "_pending")

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        #: The run whose user code may be interrupted now.
        self._armed: Cancellable | None = None
        #: Number of nested sections that must not be interrupted.
        self._depth = 0
        #: The signal came inside such a section; JobCancelled is raised at its end.
        self._pending = False
        self._checked_ns = -CHECK_NS

    def install(self) -> None:
        """Install the signal handler; called before each attempt, because a handler may have replaced it."""
        now_ns = time.monotonic_ns()
        if now_ns - self._checked_ns >= CHECK_NS:
            self._checked_ns = now_ns
            if signal.getsignal(SIGNAL) != self._on_signal:
                signal.signal(SIGNAL, self._on_signal)

    def arm(self, run: Cancellable) -> None:
        """Allow interruption: user code of this run follows.

        Raises:
            JobCancelled: the run was asked to stop before; also at any later time until `disarm`.
        """
        self._pending = False
        self._armed = run
        # The request may have come while nothing was armed; its signal had no effect.
        if run.raise_requested:
            self._fire()

    def disarm(self) -> None:
        """Forbid interruption: user code has ended."""
        self._armed = None

    def __enter__(self) -> None:
        if threading.get_ident() == self._main:
            self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.get_ident() == self._main:
            self._depth -= 1
            if self._pending and not self._depth:
                self._fire()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        run = self._armed
        if run is None or not run.raise_requested:
            return
        if self._depth:
            self._pending = True
        else:
            self._fire()

    def _fire(self) -> None:
        """Raise JobCancelled once: user code that catches it is not interrupted a second time."""
        run, self._armed, self._pending = self._armed, None, False
        if run is not None:
            raise JobCancelled(run.reason)
