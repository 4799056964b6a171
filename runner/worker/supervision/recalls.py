"""Pure: recalls of staged attempts from an executor, and what happens to the attempts returned."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from runner.protocol.worker import CancelAttempt
from runner.worker.supervision.attempts import AssignedAttempt, AttemptKey, AttemptQueue


class RecallOutcome(NamedTuple):
    """Consequences of one answer to a recall."""

    #: Attempts that end as cancelled without having started.
    cancelled: list[tuple[AssignedAttempt, CancelAttempt]]
    #: Attempts that had started already: end them by the ladder.
    started: list[tuple[AssignedAttempt, CancelAttempt]]
    #: Attempts removed from the queue, to return to the coordinator or to the executor.
    returned: list[AssignedAttempt]
    #: The coordinator sent the recall.
    was_requested: bool


class Recalls:
    """A recall returns every unstarted attempt; cancelling one in mid-queue therefore recalls all."""

    def __init__(self) -> None:
        self._requests: deque[bool] = deque()
        self._cancels: dict[AttemptKey, CancelAttempt] = {}

    def on_recall_sent(self, *, requested: bool) -> None:
        """Record that a recall was sent; `requested`: by the coordinator."""
        self._requests.append(requested)

    def cancel_when_returned(self, command: CancelAttempt) -> None:
        """Cancel this attempt if the next answer returns it; of two reasons the first is kept."""
        first = self._cancels.setdefault((command.job_id, command.attempt), command)
        first.grace_s = min(first.grace_s, command.grace_s)

    def on_recalled(self, keys: list[AttemptKey], attempts: AttemptQueue) -> RecallOutcome:
        """Remove the attempts that the executor returned from the queue."""
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
