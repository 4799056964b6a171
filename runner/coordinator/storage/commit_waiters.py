"""Effect: the callbacks that wait for a commit: when each is called, and with which result."""

from __future__ import annotations

import logging
from collections.abc import Callable

from runner.errors import StoreUnavailable

log = logging.getLogger(__name__)

#: Called with None, or with the reason why the writes were refused.
DurabilityCallback = Callable[[StoreUnavailable | None], None]


class CommitWaiters:
    """Callbacks of the commit under way and of the next one, in the order in which they were added.

    A patient callback waits until its writes are durable, however long that takes. The others are called with
    the first failure. A callback that raises is logged and does not keep the others from being called.
    """

    def __init__(self) -> None:
        self._next: list[tuple[DurabilityCallback, bool]] = []
        self._under_way: list[tuple[DurabilityCallback, bool]] = []

    def __bool__(self) -> bool:
        """Whether any callback waits for the next commit."""
        return bool(self._next)

    def add(self, callback: DurabilityCallback, *, is_patient: bool) -> None:
        """Call `callback` after the next commit."""
        self._next.append((callback, is_patient))

    def start_commit(self) -> None:
        """Record the start of the next commit: callbacks added from now on wait for the one after it."""
        self._under_way, self._next = self._next, []

    def finish_commit(self) -> None:
        """Call the callbacks of the commit under way, which is durable."""
        done, self._under_way = self._under_way, []
        for callback, _ in done:
            _run_callback(callback, None)

    def abort_commit(self, failure: StoreUnavailable) -> None:
        """Report that the commit under way was refused; patient callbacks wait for the next commit, which
        repeats its rows."""
        self._next = self._under_way + self._next
        self._under_way = []
        self.report_failure(failure)

    def report_failure(self, failure: StoreUnavailable) -> None:
        """Call and remove all callbacks that are not patient, of both commits."""
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
        # A boundary of errors: the callbacks behind this one wait for the same commit.
        log.exception("a durability callback failed")
