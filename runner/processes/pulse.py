"""Pure: whether a process hangs, judged by the pings that it leaves unanswered.

The limits are numbers of pings, never times: a suspended machine and a watcher that was held up itself send
no pings meanwhile, so that neither makes a process look hung.
"""

from __future__ import annotations

from typing import NamedTuple

#: Interval of pings to every process.
PING_INTERVAL_S = 1.0  # guard: pulse
#: Unanswered pings after which an idle process counts as hung.
SILENT_PINGS_MAX = 7  # guard: silent-pulses
#: The same limit for a process that is busy or waits for a core (on a machine that is short of them), or that
#: has not said hello yet.
BUSY_PINGS_MAX = 30  # guard: busy-pulses
#: A process that uses less than this fraction of a core is not busy.
BUSY_CPU_SHARE = 0.05
#: A process with more unanswered pings than this is reported as not answering.
LATE_PINGS_MAX = 2
#: Pings after SIGKILL by which a process has exited unless the kernel can't end it.
KILL_PINGS_MAX = 5
#: After a longer pause between two pings the watcher was held up, and answers may be waiting to be read.
HELD_UP_S = 3 * PING_INTERVAL_S


class Activity(NamedTuple):
    """What the kernel shows of a process."""

    #: Processor time in seconds that the process has used.
    cpu_s: float
    #: State of the main thread, a letter as in proc(5): R runnable, S sleeping, D in an uninterruptible call,
    #: T stopped.
    state: str


class PulseLimits(NamedTuple):
    """Unanswered pings after which a process counts as hung."""

    silent_max: int = SILENT_PINGS_MAX
    busy_max: int = BUSY_PINGS_MAX
    starting_max: int = BUSY_PINGS_MAX


class Pulse:
    """The pings to one process and its signs of life. All times are on one monotonic clock, in seconds."""

    def __init__(self, limits: PulseLimits | None = None) -> None:
        self._limits = limits or PulseLimits()
        #: Number of pings since the last sign of life.
        self.unanswered_pings = 0
        #: Whether the process was judged to hang; that lasts until its exit.
        self.is_hung = False
        #: Pings since it was judged to hang.
        self._pings_when_hung = 0
        self._last_ping_mono: float | None = None
        #: Processor time, in seconds, that the process had used at its last sign of life.
        self._cpu_s_when_heard = 0.0

    def record_sign_of_life(self) -> None:
        """Record a message of the process, an answer or any other."""
        self.unanswered_pings = 0

    @property
    def is_late(self) -> bool:
        """Whether the process has owed an answer for too long to be called answering."""
        return self.unanswered_pings > LATE_PINGS_MAX

    @property
    def survives_kill(self) -> bool:
        """Whether the process, killed once it was hung, has not exited in time: the kernel can't end it."""
        return self._pings_when_hung > KILL_PINGS_MAX

    def record_ping(self, now_mono: float, activity: Activity | None, *, is_ready: bool) -> bool:
        """Record a ping at `now_mono`; return whether the process is found to hang, which is so once.

        `activity` is None if it can't be read. `is_ready` says whether the process has said hello.
        """
        if self.is_hung:
            self._pings_when_hung += 1
            return False
        last_mono, self._last_ping_mono = self._last_ping_mono, now_mono
        if self.unanswered_pings == 0:
            self._cpu_s_when_heard = 0.0 if activity is None else activity.cpu_s
        elif last_mono is not None and now_mono - last_mono > HELD_UP_S:
            # The answers to earlier pings are read after this one.
            return False
        if self.unanswered_pings >= self._limit(activity, is_ready=is_ready):
            self.is_hung = True
            return True
        self.unanswered_pings += 1
        return False

    def _limit(self, activity: Activity | None, *, is_ready: bool) -> int:
        if not is_ready:
            return self._limits.starting_max
        return self._limits.busy_max if self._is_busy(activity) else self._limits.silent_max

    def _is_busy(self, activity: Activity | None) -> bool:
        if activity is None:
            # Descriptors have run out: no reason to kill a process that may work.
            return True
        if activity.state == "T":
            return False
        used_s = activity.cpu_s - self._cpu_s_when_heard
        return activity.state == "R" or used_s >= self.unanswered_pings * PING_INTERVAL_S * BUSY_CPU_SHARE
