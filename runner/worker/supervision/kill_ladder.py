"""Pure: the rungs by which one attempt is ended, and when each is due."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

#: Seconds from one rung to the next.
RUNG_S = 0.5
#: Ends that may leave a handler more time before the second rung; a timeout never does.
GRACEFUL_CODES = frozenset({"cancelled", "interrupted"})


class KillRung(IntEnum):
    """What is done to an attempt, in this order."""

    #: The handler is told.
    FLAG = 0
    #: JobCancelled is raised in its main thread; from here on the executor is not used again.
    RAISE = 1
    #: SIGTERM to the process group.
    TERM = 2
    #: SIGKILL to the process group.
    KILL = 3


class KillLadder:
    """The end of one attempt, or of a whole batch. Times are monotonic seconds; the first cause is the one
    that is told."""

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
        """`is_soft`: the attempts are told and no more, for there are others beside them."""
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
        """Whether the executor must end with it."""
        return self._next > KillRung.RAISE

    @property
    def is_shared(self) -> bool:
        """Whether it ends several alike, of which nobody knows who is to blame."""
        return len(self.keys) > 1

    @property
    def next_at(self) -> float | None:
        """When the next rung is due; None after the last."""
        return self._due[self._next] if self._next < len(self._due) else None

    def hasten(self, now: float, grace_s: float = RUNG_S) -> None:
        """A second cause came: no rung is later than it would be had the ladder begun now."""
        if len(self._due) == 1:
            return
        shift_s = now + max(RUNG_S, grace_s) - self._due[KillRung.RAISE]
        if shift_s < 0 and not self.ends_executor:
            self._due[1:] = [due + shift_s for due in self._due[1:]]

    def skip_all(self) -> None:
        """The executor is killed at once: no rung is left."""
        self._next = len(KillRung)

    def pop_due(self, now: float) -> KillRung | None:
        """The next rung if it is due; each is given once."""
        due = self.next_at
        if due is None or now < due:
            return None
        rung = KillRung(self._next)
        self._next += 1
        return rung
