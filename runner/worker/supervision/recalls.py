"""Pure: recalls of staged attempts from an executor, and what happens to the attempts returned."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from runner.protocol.worker import CancelAttempt
from runner.worker.supervision.attempts import AssignedAttempt, AttemptKey, AttemptQueue


class RecallOutcome(NamedTuple):
    """What follows from one answer to a recall."""

    #: Attempts that end as cancelled without having started.
    cancelled: list[tuple[AssignedAttempt, CancelAttempt]]
    #: Attempts that had already started; they must end by the ladder.
    started: list[tuple[AssignedAttempt, CancelAttempt]]
    #: Attempts removed from the queue, to return to the coordinator or to the executor.
    returned: list[AssignedAttempt]
    #: The recall came from the coordinator, which expects the returned attempts.
    was_requested: bool


class Recalls:
    """Outstanding recalls of one executor.

    A recall returns every unstarted attempt, so cancelling one in the middle of the queue recalls all of
    them; the others are sent back to the executor.
    """

    def __init__(self) -> None:
        self._requests: deque[bool] = deque()
        self._cancels: dict[AttemptKey, CancelAttempt] = {}

    def on_recall_sent(self, *, requested: bool) -> None:
        """Record that a recall was sent; `requested`: by the coordinator."""
        self._requests.append(requested)

    def cancel_when_returned(self, command: CancelAttempt) -> None:
        """Cancel this attempt if the next answer returns it; the first of several reasons is kept."""
        first = self._cancels.setdefault((command.job_id, command.attempt), command)
        first.grace_s = min(first.grace_s, command.grace_s)

    def on_recalled(self, keys: list[AttemptKey], attempts: AttemptQueue) -> RecallOutcome:
        """Remove the returned attempts from the queue; return what must happen to each."""
        requested = self._requests.popleft() if self._requests else True
        outcome = RecallOutcome([], [], [], requested)
        for key in keys:
            entry = attempts.find(key)
            if entry is None:
                continue
            attempts.remove_unstarted(entry)
            command = self._cancels.pop(key, None)
            if command is None:
                outcome.returned.append(entry)
            else:
                outcome.cancelled.append((entry, command))
        if not self._requests:
            for key, command in self._cancels.items():
                if (entry := attempts.find(key)) is not None:
                    outcome.started.append((entry, command))
            self._cancels.clear()
        return outcome
