"""Effect: sets aside the jobs whose rows in the store can't be read, so that they stop nothing else."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.queue.queue_manager import QueueManager
from runner.stores.damaged_row import DamagedRow

log = logging.getLogger(__name__)


#: Jobs that one report names in the log.
LOGGED_MAX = 20


class DamagedJobs:
    """Counts the jobs that are set aside; their rows stay in the store until they are deleted.

    A job in memory is not set aside: memory has its state, and the next commit writes the row again.
    """

    def __init__(self, lifecycle: JobLifecycle, queue_manager: QueueManager, count: int) -> None:
        """`count` is the number of rows that were set aside before this start."""
        self._registry = lifecycle.registry
        self._queue_manager = queue_manager
        self._journal = lifecycle.journal
        self._numbers: set[int] = set()
        #: Id -> row of the jobs that were set aside since the start; the store may not say so yet.
        self.by_id: dict[str, DamagedRow] = {}
        #: Jobs that are set aside.
        self.count = count

    def set_aside(self, rows: Sequence[DamagedRow]) -> None:
        """Set these jobs aside: out of the queue and the counts, and marked in the store."""
        known = self._registry.by_number.keys() | self._numbers
        new = [row for row in rows if row.number not in known]
        for row in new[:LOGGED_MAX]:
            log.error("job %s is damaged and set aside: %s", row.id, row.reason)
        if len(new) > LOGGED_MAX:
            log.error("%d more jobs are damaged; `runner store check` lists them", len(new) - LOGGED_MAX)
        for row in rows:
            live = self._registry.by_number.get(row.number)
            if live is not None:
                log.error("job %s is damaged in the store (%s); its row is written again", row.id, row.reason)
                if live.phase != "ended":
                    self._journal.update(live.job)
            elif row.number not in self._numbers:
                self._numbers.add(row.number)
                self.by_id[row.id] = row
                self.count += 1
                self._registry.uncount_stored(row.queue, row.state)
                self._queue_manager.discard_stored(row.number)
                self._journal.set_aside(row.number, row.id, row.reason)

    def on_deleted(self, row: DamagedRow) -> None:
        """Note that a job that was set aside is deleted."""
        self._numbers.discard(row.number)
        self.by_id.pop(row.id, None)
        self.count -= 1
