"""Pure: staged attempts that are asked back from an executor, and what becomes of them when they come."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from runner.protocol.worker import CancelAttempt
from runner.worker.supervision.attempts import AssignedAttempt, AttemptKey, AttemptQueue


class RecallOutcome(NamedTuple):
    """What one answer to a recall means."""

    #: They end as cancelled without having started.
    cancelled: list[tuple[AssignedAttempt, CancelAttempt]]
    #: They had started already: the ladder.
    started: list[tuple[AssignedAttempt, CancelAttempt]]
    #: They were taken out of the line and go up, or back to the executor.
    returned: list[AssignedAttempt]
    #: The coordinator asked for them.
    was_requested: bool


class Recalls:
    """A recall takes all that has not started; to cancel one in the middle of the line all come back."""

    def __init__(self) -> None:
        self._requests: deque[bool] = deque()
        self._cancels: dict[AttemptKey, CancelAttempt] = {}

    def on_recall_sent(self, *, requested: bool) -> None:
        """A recall goes down; `ordered`: by the coordinator."""
        self._requests.append(requested)

    def cancel_when_returned(self, command: CancelAttempt) -> None:
        """Cancel this one if it comes back with the next answer; of two the first reason is kept."""
        first = self._cancels.setdefault((command.job_id, command.attempt), command)
        first.grace_s = min(first.grace_s, command.grace_s)

    def on_recalled(self, keys: list[AttemptKey], attempts: AttemptQueue) -> RecallOutcome:
        """The executor gave these back; they leave the line."""
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
