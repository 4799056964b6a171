"""Effect: after a link was cut: what its worker still holds goes on, what was lost on the way is put right.

What was under way when the link broke may be lost, in either direction. A worker sends again what it has to
tell. So when all of that is in, an attempt that was handed over and is neither held there nor told of never
arrived; it is given back as if it had been recalled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from runner.coordinator.dispatch.dispatcher import Dispatcher
from runner.coordinator.processes.worker_pool import WorkerHandle
from runner.protocol.worker import AttemptsRecalled, Hello

log = logging.getLogger(__name__)


class _Doubt(NamedTuple):
    """What the worker did not name when it came back."""

    #: It is known what became of them when this message of the worker is in.
    last: int
    executors: list[int]
    attempts: list[AttemptsRecalled]


class Relinks:
    """Workers that came back and have not yet told all that they had to tell."""

    def __init__(
        self,
        *,
        dispatch: Dispatcher,
        gone: Callable[[int], None],
        recalled: Callable[[WorkerHandle, AttemptsRecalled], None],
        on_back: Callable[[WorkerHandle], None],
    ) -> None:
        self._dispatch = dispatch
        self._gone = gone
        self._recalled = recalled
        self._on_back = on_back
        self._doubts: dict[str, _Doubt] = {}

    def begin(self, worker: WorkerHandle, hello: Hello) -> None:
        """It is back; nothing new is handed to it before `on_back` was told."""
        mine = self._dispatch.executors.of_worker(worker)
        there, held = set(hello.executors), set(hello.running)
        attempts = [
            AttemptsRecalled(
                post.number,
                [
                    key
                    for live in post.attempts.values()
                    if live.phase != "assigned" and (key := (live.job.id, live.attempt_in_flight)) not in held
                ],
            )
            for post in mine
            if post.number in there
        ]
        missing = [post.number for post in mine if post.number not in there]
        self._doubts[worker.name] = _Doubt(hello.last_seq, missing, attempts)
        self.settle(worker)

    def settle(self, worker: WorkerHandle) -> None:
        """The worker was heard: if that was all, what it did not name is lost."""
        doubt = self._doubts.get(worker.name)
        if doubt is None or worker.last_applied < doubt.last:
            return
        del self._doubts[worker.name]
        lost = sum(len(recalled.attempts) for recalled in doubt.attempts)
        log.warning(
            "%s is back; up to %d executors and %d attempts had not reached it",
            worker.name,
            len(doubt.executors),
            lost,
        )
        for executor in doubt.executors:
            self._gone(executor)
        for recalled in doubt.attempts:
            self._recalled(worker, recalled)
        for post in self._dispatch.executors.of_worker(worker):
            self._dispatch.resend_commands(post)
        self._on_back(worker)
        self._dispatch.wake()

    def forget(self, worker: WorkerHandle) -> None:
        """It has died."""
        self._doubts.pop(worker.name, None)
