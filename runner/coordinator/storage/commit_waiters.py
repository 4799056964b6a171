"""Effect: callbacks that wait until a commit is durable, and which of them a failure is reported to."""

from __future__ import annotations

import logging
from collections.abc import Callable

from runner.errors import StoreUnavailable

log = logging.getLogger(__name__)

#: Called with None, or with the reason why the writes were refused.
DurabilityCallback = Callable[[StoreUnavailable | None], None]


class CommitWaiters:
    """Callbacks of the commit under way and of the next one, in the order in which they were added.

    A patient callback waits until its writes are durable, however long that takes; the others are called
    with a failure as soon as there is one.
    """

    def __init__(self) -> None:
        self._next: list[tuple[DurabilityCallback, bool]] = []
        self._under_way: list[tuple[DurabilityCallback, bool]] = []

    def __bool__(self) -> bool:
        """Whether any callback waits for the next commit."""
        return bool(self._next)

    def add(self, callback: DurabilityCallback, *, is_patient: bool) -> None:
        """Call after the next commit."""
        self._next.append((callback, is_patient))

    def start_commit(self) -> None:
        """The next commit starts: callbacks added from now on wait for the one after it."""
        self._under_way, self._next = self._next, []

    def finish_commit(self) -> None:
        """The commit is durable."""
        done, self._under_way = self._under_way, []
        for callback, _ in done:
            _run_callback(callback, None)

    def abort_commit(self, failure: StoreUnavailable) -> None:
        """The commit was refused; its rows go into the next one."""
        self._next = self._under_way + self._next
        self._under_way = []
        self.report_failure(failure)

    def report_failure(self, failure: StoreUnavailable) -> None:
        """Call all but the patient ones with a failure; they wait no longer."""
        waiting = self._under_way + self._next
        self._under_way = [entry for entry in self._under_way if entry[1]]
        self._next = [entry for entry in self._next if entry[1]]
        for callback, is_patient in waiting:
            if not is_patient:
                _run_callback(callback, failure)


def _run_callback(callback: DurabilityCallback, failure: StoreUnavailable | None) -> None:
    try:
        callback(failure)
    except Exception:
        # The loop's boundary: the callbacks behind this one wait for the same commit.
        log.exception("a durability callback failed")
