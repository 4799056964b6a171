"""Pure: the attempts handed to one executor, in its order, and which of them runs, ran or waits."""

from __future__ import annotations

from collections import deque

from runner.protocol.worker import AttemptSpec
from runner.worker.processes.page_figures import PageFigures

Key = tuple[str, int]
#: A note is at most some hundred KiB, and mostly one event.
NOTES_KEPT = 4


class Entry:
    """One attempt at an executor and what its worker knows of it."""

    __slots__ = (
        "attempt",
        "begun_mono",
        "is_first",
        "is_over",
        "is_told",
        "key",
        "log_bytes",
        "log_lines",
        "markers",
        "mates",
        "notes",
        "peak_bytes",
        "place",
        "release_at",
        "result",
        "seq",
        "shift",
    )

    def __init__(self, attempt: AttemptSpec) -> None:
        self.attempt = attempt
        self.key: Key = (attempt.job_id, attempt.attempt)
        #: All of its batch, itself included; empty where it is in none.
        self.mates: list[Entry] = []
        #: Where attempts run side by side: since when its code runs, and its place in the shared page.
        self.begun_mono: float | None = None
        self.place = 0
        #: Its `Ended` has gone up: nothing may follow.
        self.is_over = False
        #: It waited for this executor's load.
        self.is_first = False
        #: Its `Started` has gone up.
        self.is_told = False
        #: Descriptor output given out as log events so far.
        self.log_bytes = 0
        self.log_lines = 0
        #: Its last encoded `Note`s: what it said before a death.
        self.notes: deque[bytes] = deque(maxlen=NOTES_KEPT)
        #: Markers that its output pipes still hold: stream name -> marker.
        self.markers: dict[str, bytes] = {}
        #: Highest memory seen while it ran.
        self.peak_bytes: int | None = None
        #: Last message number sent up, and how many of them were the worker's own.
        self.seq = 0
        self.shift = 0
        #: Its encoded `Ended`, held back until the markers were read or this monotonic moment.
        self.result: bytes | None = None
        self.release_at = 0.0


class Line:
    """Entries in the executor's order, those that have started first. The ordinal of an entry is the count of
    starts that names it; where attempts run side by side they end in any order, and it means nothing once an
    entry has started."""

    def __init__(self, *, is_batched: bool = False, slots: int = 1) -> None:
        self.is_batched = is_batched
        self.slots = slots
        self.entries: list[Entry] = []
        #: Entries that have started and ended.
        self.ended = 0
        #: Those of them whose result waits for their output.
        self.untold: list[Key] = []
        #: What came too late, or stood behind one that died: told when the executor is gone.
        self.not_started: list[Key] = []

    def hand_over(self, attempts: list[AttemptSpec]) -> list[Entry]:
        """Put attempts at the end; where the handler takes batches they are one."""
        fresh = [Entry(attempt) for attempt in attempts]
        if self.is_batched:
            for entry in fresh:
                entry.mates = fresh
        self.entries.extend(fresh)
        return fresh

    def ordinal(self, entry: Entry) -> int:
        """The count of starts that names it, once it has started."""
        return self.ended + self.entries.index(entry) + 1

    def find(self, key: Key) -> Entry | None:
        """The entry of an attempt that has not ended."""
        for entry in self.entries:
            if entry.key == key:
                return entry
        return None

    def end(self, entry: Entry) -> None:
        """It started and has ended."""
        self.entries.remove(entry)
        self.ended += 1

    def drop(self, entry: Entry) -> None:
        """It has not started and will not: the ordinals behind it move up."""
        self.entries.remove(entry)

    def last_started(self, figures: PageFigures) -> Entry | None:
        """The attempt that runs, or that ran last and has not been told to have ended."""
        at = figures.started - self.ended - 1
        return self.entries[at] if 0 <= at < len(self.entries) else None

    def running(self, figures: PageFigures) -> list[Entry]:
        """As `last_started`, with all that started together with it, or that run beside it."""
        # A handler may write where it should not: the page is not always to be believed.
        count = min(figures.started - self.ended, len(self.entries))
        if count <= 0:
            return []
        return self.entries[:count] if self.slots > 1 else self.beside(self.entries[count - 1])

    def beside(self, entry: Entry) -> list[Entry]:
        """The entry and those of its batch that have not ended."""
        if not entry.mates:
            return [entry]
        return [one for one in self.entries if one.mates is entry.mates]

    def first_count(self) -> int:
        """How many have the ordinals of what is first in line: a batch starts as one."""
        return len(self.beside(self.entries[0])) if self.entries else 1

    def held(self) -> list[Key]:
        """The attempts whose end or return has not been told yet."""
        return [*(entry.key for entry in self.entries), *self.untold, *self.not_started]

    def waiting(self, figures: PageFigures) -> list[Entry]:
        """What has not started."""
        return self.entries[max(0, figures.started - self.ended) :]
