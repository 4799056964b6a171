"""Pure: the attempts handed to one executor, in its order, and which of them runs, ran or waits."""

from __future__ import annotations

from collections import deque

from runner.protocol.worker import AttemptSpec
from runner.worker.processes.page_figures import PageFigures

AttemptKey = tuple[str, int]
#: A note is at most some hundred KiB, and mostly one event.
EVENT_MESSAGES_KEPT = 4


class AssignedAttempt:
    """One attempt at an executor and what its worker knows of it."""

    __slots__ = (
        "attempt",
        "batch",
        "event_messages",
        "is_end_sent",
        "is_start_sent",
        "key",
        "log_bytes",
        "log_lines",
        "markers",
        "own_messages",
        "peak_bytes",
        "release_at",
        "result",
        "seq",
        "slot_index",
        "started_mono",
        "waited_for_load",
    )

    def __init__(self, attempt: AttemptSpec) -> None:
        self.attempt = attempt
        self.key: AttemptKey = (attempt.job_id, attempt.attempt)
        #: All of its batch, itself included; empty where it is in none.
        self.batch: list[AssignedAttempt] = []
        #: Where attempts run side by side: since when its code runs, and its place in the shared page.
        self.started_mono: float | None = None
        self.slot_index = 0
        #: Its `Ended` has gone up: nothing may follow.
        self.is_end_sent = False
        #: It waited for this executor's load.
        self.waited_for_load = False
        #: Its `Started` has gone up.
        self.is_start_sent = False
        #: Descriptor output given out as log events so far.
        self.log_bytes = 0
        self.log_lines = 0
        #: Its last encoded `Note`s: what it said before a death.
        self.event_messages: deque[bytes] = deque(maxlen=EVENT_MESSAGES_KEPT)
        #: Markers that its output pipes still hold: stream name -> marker.
        self.markers: dict[str, bytes] = {}
        #: Highest memory seen while it ran.
        self.peak_bytes: int | None = None
        #: Last message number sent up, and how many of them were the worker's own.
        self.seq = 0
        self.own_messages = 0
        #: Its encoded `Ended`, held back until the markers were read or this monotonic moment.
        self.result: bytes | None = None
        self.release_at = 0.0


class AttemptQueue:
    """Entries in the executor's order, those that have started first. The ordinal of an entry is the count of
    starts that names it; where attempts run side by side they end in any order, and it means nothing once an
    entry has started."""

    def __init__(self, *, is_batched: bool = False, slots: int = 1) -> None:
        self.is_batched = is_batched
        self.slots = slots
        self.entries: list[AssignedAttempt] = []
        #: Entries that have started and ended.
        self.ended_count = 0
        #: Those of them whose result waits for their output.
        self.withheld: list[AttemptKey] = []
        #: What came too late, or stood behind one that died: told when the executor is gone.
        self.not_started: list[AttemptKey] = []

    def assign(self, attempts: list[AttemptSpec]) -> list[AssignedAttempt]:
        """Put attempts at the end; where the handler takes batches they are one."""
        added = [AssignedAttempt(attempt) for attempt in attempts]
        if self.is_batched:
            for entry in added:
                entry.batch = added
        self.entries.extend(added)
        return added

    def ordinal_of(self, entry: AssignedAttempt) -> int:
        """The count of starts that names it, once it has started."""
        return self.ended_count + self.entries.index(entry) + 1

    def find(self, key: AttemptKey) -> AssignedAttempt | None:
        """The entry of an attempt that has not ended."""
        for entry in self.entries:
            if entry.key == key:
                return entry
        return None

    def remove_ended(self, entry: AssignedAttempt) -> None:
        """It started and has ended."""
        self.entries.remove(entry)
        self.ended_count += 1

    def remove_unstarted(self, entry: AssignedAttempt) -> None:
        """It has not started and will not: the ordinals behind it move up."""
        self.entries.remove(entry)

    def last_started(self, figures: PageFigures) -> AssignedAttempt | None:
        """The attempt that runs, or that ran last and has not been told to have ended."""
        index = figures.started - self.ended_count - 1
        return self.entries[index] if 0 <= index < len(self.entries) else None

    def running(self, figures: PageFigures) -> list[AssignedAttempt]:
        """As `last_started`, with all that started together with it, or that run beside it."""
        # A handler may write where it should not: the page is not always to be believed.
        count = min(figures.started - self.ended_count, len(self.entries))
        if count <= 0:
            return []
        return self.entries[:count] if self.slots > 1 else self.batch_of(self.entries[count - 1])

    def batch_of(self, entry: AssignedAttempt) -> list[AssignedAttempt]:
        """The entry and those of its batch that have not ended."""
        if not entry.batch:
            return [entry]
        return [one for one in self.entries if one.batch is entry.batch]

    def first_batch_size(self) -> int:
        """How many have the ordinals of what is first in line: a batch starts as one."""
        return len(self.batch_of(self.entries[0])) if self.entries else 1

    def unreported_attempts(self) -> list[AttemptKey]:
        """The attempts whose end or return has not been told yet."""
        return [*(entry.key for entry in self.entries), *self.withheld, *self.not_started]

    def unstarted_attempts(self, figures: PageFigures) -> list[AssignedAttempt]:
        """What has not started."""
        return self.entries[max(0, figures.started - self.ended_count) :]
