"""Pure: staged attempts that are asked back from an executor, and what becomes of them when they come."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from runner.protocol.worker import CancelAttempt
from runner.worker.supervision.attempts import AssignedAttempt, AttemptKey, AttemptQueue


class Outcome(NamedTuple):
    """What one answer to a recall means."""

    #: They end as cancelled without having started.
    cancelled: list[tuple[AssignedAttempt, CancelAttempt]]
    #: They had started already: the ladder.
    started: list[tuple[AssignedAttempt, CancelAttempt]]
    #: They were taken out of the line and go up, or back to the executor.
    returned: list[AssignedAttempt]
    #: The coordinator asked for them.
    was_ordered: bool


class Recalls:
    """A recall takes all that has not started; to cancel one in the middle of the line all come back."""

    def __init__(self) -> None:
        self._asked: deque[bool] = deque()
        self._cancels: dict[AttemptKey, CancelAttempt] = {}

    def ask(self, *, ordered: bool) -> None:
        """A recall goes down; `ordered`: by the coordinator."""
        self._asked.append(ordered)

    def cancel(self, order: CancelAttempt) -> None:
        """Cancel this one if it comes back with the next answer; of two the first reason is kept."""
        first = self._cancels.setdefault((order.job_id, order.attempt), order)
        first.grace_s = min(first.grace_s, order.grace_s)

    def answered(self, keys: list[AttemptKey], line: AttemptQueue) -> Outcome:
        """The executor gave these back; they leave the line."""
        ordered = self._asked.popleft() if self._asked else True
        outcome = Outcome([], [], [], ordered)
        for key in keys:
            entry = line.find(key)
            if entry is None:
                continue
            line.remove_unstarted(entry)
            order = self._cancels.pop(key, None)
            if order is None:
                outcome.returned.append(entry)
            else:
                outcome.cancelled.append((entry, order))
        if not self._asked:
            for key, order in self._cancels.items():
                if (entry := line.find(key)) is not None:
                    outcome.started.append((entry, order))
            self._cancels.clear()
        return outcome
