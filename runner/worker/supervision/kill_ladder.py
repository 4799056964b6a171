"""Pure: the rungs of ending one attempt, and when each is due."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

#: Seconds from one rung to the next.
RUNG_S = 0.5
#: Causes for which the handler gets its `grace` before the second rung; a timeout never waits.
GRACEFUL_CODES = frozenset({"cancelled", "interrupted"})


class KillRung(IntEnum):
    """The steps that end an attempt, in this order."""

    #: Ask the handler to stop.
    FLAG = 0
    #: Raise JobCancelled in its main thread; the executor is not used after that.
    RAISE = 1
    #: Send SIGTERM to the process group.
    TERM = 2
    #: Send SIGKILL to the process group.
    KILL = 3


class KillLadder:
    """The end of one attempt, or of a whole batch. The first cause is the one reported.

    Times are monotonic seconds.
    """

    __slots__ = ("_due", "_next", "code", "keys", "message")

    def __init__(
        self,
        keys: Sequence[tuple[str, int]],
        code: str,
        message: str,
        *,
        now: float,
        grace_s: float,
        flag_only: bool = False,
    ) -> None:
        """Create the ladder; with `flag_only` it stops after the first rung and spares other attempts."""
        self.keys = tuple(keys)
        self.code = code
        self.message = message
        self._next = 0
        if flag_only:
            self._due = [now]
            return
        first = max(RUNG_S, grace_s) if code in GRACEFUL_CODES else RUNG_S
        self._due = [now, now + first, now + first + RUNG_S, now + first + 2 * RUNG_S]

    @property
    def ends_executor(self) -> bool:
        """Return whether the executor must end together with the attempt."""
        return self._next > KillRung.RAISE

    @property
    def is_shared(self) -> bool:
        """Return whether several attempts end the same way, so that the culprit is unknown."""
        return len(self.keys) > 1

    @property
    def next_at(self) -> float | None:
        """Return when the next rung is due; None after the last one."""
        return self._due[self._next] if self._next < len(self._due) else None

    def hasten(self, now: float, grace_s: float = RUNG_S) -> None:
        """Apply a second cause: make every rung due as early as if the ladder had begun now."""
        if len(self._due) == 1:
            return
        shift_s = now + max(RUNG_S, grace_s) - self._due[KillRung.RAISE]
        if shift_s < 0 and not self.ends_executor:
            self._due[1:] = [due + shift_s for due in self._due[1:]]

    def skip_all(self) -> None:
        """Drop all rungs, since the executor is killed at once."""
        self._next = len(KillRung)

    def pop_due(self, now: float) -> KillRung | None:
        """Return the next rung if it is due; each rung is returned once."""
        due = self.next_at
        if due is None or now < due:
            return None
        rung = KillRung(self._next)
        self._next += 1
        return rung
