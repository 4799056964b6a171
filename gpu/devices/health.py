"""Pure: whether a device may take work, decided by its recent faults and checks.

    ok ──fault──▶ suspect ──faults of several──▶ quarantined ◀──answers again── lost
     ▲               │ ▲                              │                          ▲
     │◀──time────────┘ └─────────check passed─────────┘      falls off the bus ──┘

A suspect device keeps working. Quarantined and lost devices take no new work. A quarantined device is
checked with a pause that grows from check to check, and returns to service when one passes. `now` is in
seconds of any clock.
"""

from __future__ import annotations

import math
from typing import Literal

HealthStatus = Literal["ok", "suspect", "quarantined", "lost"]

#: Faults count for this long, in seconds.
WINDOW_S = 600.0
#: A device is quarantined at this many faults of different origin within the window.
FAULTS_MAX = 3
#: A device that cannot be read for this long is quarantined; a single failed reading is normal.
UNREADABLE_S = 5.0
#: The pause before the first check, and the longest; each is twice the one before.
PAUSE_S = (1.0, 300.0)


class HealthState:
    """The health of one device."""

    def __init__(self, now: float) -> None:
        """Start healthy and without faults."""
        self.state: HealthStatus = "ok"
        #: Why, in plain text; empty while the device is ok.
        self.reason = ""
        self.since = now
        #: The driver, or the GPU itself, asks for a reset: no check returns it to service.
        self.needs_reset = False
        #: A check is running.
        self.is_checking = False
        #: No fault since the last check that passed, see `gpu.job_class.JobClass.avoided_devices`.
        self.is_proven = True
        #: (kind, origin) of a fault -> when it stops counting, and the program that had it, if any.
        self._faults: dict[tuple[str, str], tuple[float, str]] = {}
        #: Programs whose errors were found to be their own -> until when they are ignored.
        self._excused: dict[str, float] = {}
        self._unreadable_since = math.inf
        self._is_held = False
        self._pause_s = PAUSE_S[0]
        self._check_at = -math.inf

    @property
    def takes_work(self) -> bool:
        """Whether new work may start there."""
        return self.state in ("ok", "suspect")

    def record_fault(self, now: float, kind: str, origin: str, reason: str, *, program: str = "") -> None:
        """Record a fault that the device may have caused. Each origin (a job, an executor) counts once.

        Errors of a program do not count where earlier ones of it also occurred on a healthy device.
        """
        if now < self._excused.get(program, -math.inf):
            return
        self._faults[kind, origin] = now + WINDOW_S, program
        self._expire(now)
        if self.is_proven:
            self.is_proven, self._check_at = False, now
        if not self.takes_work:
            return
        if len(self._faults) >= FAULTS_MAX:
            self.quarantine(
                now, f"{len(self._faults)} faults within {WINDOW_S / 60:g} minutes; the last: {reason}"
            )
        else:
            self._set_state("suspect", reason, now)

    def quarantine(self, now: float, reason: str, *, needs_reset: bool = False) -> None:
        """Stop new work until a check passes, or (`needs_reset`) until the device was reset."""
        self.needs_reset = self.needs_reset or needs_reset
        if self.state != "lost":
            if self.takes_work:
                self._check_at = now + self._next_pause()
            self._set_state("quarantined", reason, now)

    def hold(self, now: float, reason: str | None) -> None:
        """Quarantine the device for as long as there is a `reason`; no check ends that."""
        if reason is not None:
            self.quarantine(now, reason)
        elif self._is_held:
            self._check_at = now
        self._is_held = reason is not None

    def mark_lost(self, now: float, reason: str) -> None:
        """Record that the device no longer answers."""
        self._set_state("lost", reason, now)

    def record_reading(self, now: float, fault: str | None) -> None:
        """Record a reading: "lost" or another fault, None where it returned figures."""
        if fault is None:
            self._unreadable_since = math.inf
            if self.state == "lost":
                # Whatever made it answer again has reset it.
                self.needs_reset = False
                self._check_at = now + self._next_pause()
                self._set_state("quarantined", f"it answers again, but {self.reason}", now)
        elif fault == "lost":
            self.mark_lost(now, "the driver has lost it")
        elif self._unreadable_since == math.inf:
            self._unreadable_since = now
            self.record_fault(now, "reading", f"{now}", f"it can't be read: {fault}")
        elif self.takes_work and now - self._unreadable_since >= UNREADABLE_S:
            self.quarantine(now, f"it could not be read for {UNREADABLE_S:g} s: {fault}")

    def needs_check(self, now: float) -> bool:
        """Return whether a check should start now; never where it is unreadable or awaits a reset."""
        if (
            self.is_checking
            or self.needs_reset  # guard: no-check-before-a-reset
            or self._is_held
            or self.state == "lost"
        ):
            return False
        if self._unreadable_since < math.inf:
            return False
        return not (self.takes_work and self.is_proven) and now >= self._check_at

    def record_check(self, now: float, failure: str | None) -> None:
        """Record the end of a check; None: the device passed."""
        self.is_checking = False
        if self.state == "lost":
            return
        if failure is not None:
            if not self.takes_work:
                self._check_at = now + self._next_pause()
            self.quarantine(now, f"the check failed: {failure}")
            return
        programs = {program for _, program in self._faults.values()}
        if self.state == "quarantined" and len(programs) == 1 and programs != {""}:
            self._excused |= dict.fromkeys(programs, now + WINDOW_S)
        self.is_proven = True
        if (
            self.state == "quarantined"
            and not self.needs_reset  # guard: no-check-instead-of-a-reset
            and not self._is_held
        ):
            self._faults.clear()
            self._set_state("ok", "", now)

    def expire(self, now: float) -> None:
        """Expire old faults."""
        self._expire(now)
        if self.state == "suspect" and not self._faults:
            self._set_state("ok", "", now)
        if self.state == "ok" and now - self.since >= WINDOW_S:
            self._pause_s = PAUSE_S[0]

    def resume(self, now: float) -> None:
        """Resume after the operator said that the device works or was reset: a check decides, at once."""
        self.needs_reset = False
        self._pause_s, self._check_at = PAUSE_S[0], now

    def _expire(self, now: float) -> None:
        self._faults = {key: fault for key, fault in self._faults.items() if fault[0] > now}

    def _next_pause(self) -> float:
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, PAUSE_S[1])
        return pause_s

    def _set_state(self, state: HealthStatus, reason: str, now: float) -> None:
        if state != self.state:
            self.since = now
        self.state, self.reason = state, reason
