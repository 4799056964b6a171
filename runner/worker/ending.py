"""Effect: brings one executor to its end: the ladder for one attempt, a request to exit, or SIGKILL."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from runner import wire
from runner.worker.ladder import Ladder, Rung
from runner.worker.leftovers import STUCK_S
from runner.worker.line import Key
from runner.worker.process import ExecutorProcess
from runner.worker.settlement import Cause


class Ending:
    """The first cause is the one that is told."""

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
        self.cause: Cause | None = None
        self.ladder: Ladder | None = None
        #: It will exit and is given nothing any more.
        self.is_closing = False
        self._kill_at: float | None = None
        self._stuck_at: float | None = None

    @property
    def next_at(self) -> float | None:
        """When `tick` has something to do; monotonic seconds."""
        rung_at = self.ladder.next_at if self.ladder else None
        return min((at for at in (rung_at, self._kill_at, self._stuck_at) if at is not None), default=None)

    def begin(self, key: Key, code: str, message: str, grace_s: float) -> None:
        """End the attempt that runs, at once where `grace_s` is negative; a second cause for the same one
        makes haste at most."""
        now = time.monotonic()
        if self.ladder is not None and self.ladder.key == key:
            self.ladder.hasten(now, grace_s)
        else:
            self.ladder = Ladder(key, code, message, now=now, grace_s=grace_s)
        self.tick(now)
        if grace_s < 0:
            # Without a cause: the next attempt may have begun by now, and it is not the one that is meant.
            self.kill()
        elif self.next_at is not None:
            self._wake_at(self.next_at)

    def ended(self, key: Key) -> tuple[str, str] | None:
        """The attempt has ended: with this code and message, if it was being ended."""
        ladder = self.ladder
        if ladder is None or ladder.key != key:
            return None
        if not ladder.is_beyond_flag:
            self.ladder = None
        return ladder.code, ladder.message

    def close(self, cause: Cause, within_s: float) -> None:
        """It is about to exit by itself, and is killed if it does not."""
        self.cause = self.cause or cause
        self.is_closing = True
        self._kill_at = time.monotonic() + within_s
        self._wake_at(self._kill_at)

    def kill(self, cause: Cause | None = None) -> None:
        """SIGKILL to the group."""
        # What has thrown off session, group and marker is found through its parent, while that lives.
        self._before_kill()
        self.cause = self.cause or cause
        self.is_closing = True
        self._kill_at = None
        self._process.signal_group(signal.SIGKILL)
        if self._stuck_at is None:
            self._stuck_at = time.monotonic() + STUCK_S
            self._wake_at(self._stuck_at)

    def tick(self, now: float) -> None:
        """Do what is due."""
        ladder = self.ladder
        while ladder is not None and (rung := ladder.take(now)) is not None:
            self._step(ladder, rung)
        if self._kill_at is not None and now >= self._kill_at:
            self.kill()
        if self._stuck_at is not None and now >= self._stuck_at:
            self._stuck_at = None
            self._on_stuck()

    def _step(self, ladder: Ladder, rung: Rung) -> None:
        match rung:
            case Rung.FLAG:
                self._process.send([wire.encode(wire.Flag(*ladder.key, ladder.code))])
            case Rung.RAISE:
                # It is not used again, so nothing that waits may start there.
                self.is_closing = True
                self._recall()
                self._process.send([wire.encode(wire.Raise(*ladder.key))])
            case Rung.TERM:
                self._process.signal_group(signal.SIGTERM)
            case Rung.KILL:
                self.kill()
