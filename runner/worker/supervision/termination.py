"""Effect: ends one executor: by the kill ladder of an attempt, a request to exit, or SIGKILL."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence

from runner.protocol import worker as worker_protocol
from runner.worker.processes.cleanup import STUCK_S
from runner.worker.processes.executor_process import ExecutorProcess
from runner.worker.supervision.attempts import AttemptKey
from runner.worker.supervision.crash_report import EndCause
from runner.worker.supervision.kill_ladder import KillLadder, KillRung


class Termination:
    """How and why one executor ends; the first cause is the one reported.

    `recall` asks for unstarted attempts back; `wake_at` schedules a call of `run_due` (monotonic seconds);
    `before_kill` is called right before SIGKILL; `on_stuck` is called if the process outlives SIGKILL by
    `STUCK_S`.
    """

    def __init__(
        self,
        process: ExecutorProcess,
        *,
        recall: Callable[[], None],
        wake_at: Callable[[float], None],
        before_kill: Callable[[], None],
        on_stuck: Callable[[], None],
    ) -> None:
        self._process = process
        self._recall, self._wake_at, self._on_stuck = recall, wake_at, on_stuck
        self._before_kill = before_kill
        #: Why the executor ends; None while it does not, or if it ends by itself.
        self.cause: EndCause | None = None
        #: One for each attempt that is being ended; the attempts of a batch may share one.
        self.ladders: dict[AttemptKey, KillLadder] = {}
        #: The executor will exit and gets no more attempts.
        self.is_closing = False
        self._kill_at: float | None = None
        self._stuck_at: float | None = None

    @property
    def next_at(self) -> float | None:
        """Return when `run_due` has work; monotonic seconds, None if never."""
        moments = [self._kill_at, self._stuck_at]
        if self.ladders:
            moments += [ladder.next_at for ladder in self.ladders.values()]
        return min((at for at in moments if at is not None), default=None)

    def end_attempts(
        self, keys: Sequence[AttemptKey], code: str, message: str, grace_s: float, *, flag_only: bool = False
    ) -> None:
        """End running attempts, at once if `grace_s` is negative; a second cause can only hasten the end.

        `flag_only`: ask them to stop, and spare the attempts that run next to them.
        """
        now = time.monotonic()
        new_keys = [key for key in keys if key not in self.ladders]
        for key in keys:
            if key in self.ladders:
                self.ladders[key].hasten(now, grace_s)
        if new_keys:
            ladder = KillLadder(new_keys, code, message, now=now, grace_s=grace_s, flag_only=flag_only)
            self.ladders.update(dict.fromkeys(new_keys, ladder))
        self.run_due(now)
        if grace_s < 0:
            # Kill without a cause: the next attempt may have started by now and must not get this cause.
            self.ladders[keys[0]].skip_all()
            self.kill()
        elif self.next_at is not None:
            self._wake_at(self.next_at)

    def on_attempt_ended(self, key: AttemptKey) -> KillLadder | None:
        """Forget an attempt that has ended; return the ladder that was ending it, if any."""
        ladder = self.ladders.get(key) if self.ladders else None
        if ladder is not None and not ladder.ends_executor:
            del self.ladders[key]
        return ladder

    def expect_exit(self, cause: EndCause, within_s: float) -> None:
        """Expect the executor to exit by itself; kill it after `within_s` seconds."""
        self.cause = self.cause or cause
        self.is_closing = True
        self._kill_at = time.monotonic() + within_s
        self._wake_at(self._kill_at)

    def kill(self, cause: EndCause | None = None) -> None:
        """Send SIGKILL to the process group; without a `cause`, the exit status explains the end."""
        # A process that left session, group and marker is found only through its parent, while that lives.
        self._before_kill()
        self.cause = self.cause or cause
        self.is_closing = True
        self._kill_at = None
        self._process.signal_group(signal.SIGKILL)
        if self._stuck_at is None:
            self._stuck_at = time.monotonic() + STUCK_S
            self._wake_at(self._stuck_at)

    def run_due(self, now: float) -> None:
        """Apply every rung that is due, then the kill of an executor that has not exited in time."""
        for ladder in list(self.ladders.values()):
            while (rung := ladder.pop_due(now)) is not None:
                self._apply_rung(ladder, rung)
        if self._kill_at is not None and now >= self._kill_at:
            self.kill()
        if self._stuck_at is not None and now >= self._stuck_at:
            self._stuck_at = None
            self._on_stuck()

    def _apply_rung(self, ladder: KillLadder, rung: KillRung) -> None:
        """Apply one rung: ask, raise in the main thread, SIGTERM, SIGKILL."""
        match rung:
            case KillRung.FLAG:
                self._process.send(
                    [
                        worker_protocol.encode(worker_protocol.RequestCancel(*key, ladder.code))
                        for key in ladder.keys
                    ]
                )
            case KillRung.RAISE:
                # The executor is not used after this rung: no unstarted attempt may start in it.
                self.is_closing = True
                self._recall()
                self._process.send([worker_protocol.encode(worker_protocol.RaiseCancelled(*ladder.keys[0]))])
            case KillRung.TERM:
                self._process.signal_group(signal.SIGTERM)
            case KillRung.KILL:
                self.kill()
