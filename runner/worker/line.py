"""Pure: the attempts handed to one executor, in its order, and which of them runs, ran or waits."""

from __future__ import annotations

from collections import deque

from runner.wire import Attempt
from runner.worker.clocks import Figures

Key = tuple[str, int]
#: A note is at most some hundred KiB, and mostly one event.
NOTES_KEPT = 4


class Entry:
    """One attempt at an executor and what its worker knows of it."""

    __slots__ = (
        "attempt",
        "is_first",
        "is_told",
        "key",
        "log_bytes",
        "log_lines",
        "markers",
        "notes",
        "peak_bytes",
        "release_at",
        "result",
        "seq",
        "shift",
    )

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.key: Key = (attempt.job_id, attempt.attempt)
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
    """Entries in the executor's order. The ordinal of an entry is the count of starts that names it."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        #: Entries that have started and ended.
        self.ended = 0
        #: Those of them whose result waits for their output.
        self.untold: list[Key] = []
        #: What came too late, or stood behind one that died: told when the executor is gone.
        self.not_started: list[Key] = []

    def hand_over(self, attempts: list[Attempt]) -> list[Entry]:
        """Put attempts at the end."""
        fresh = [Entry(attempt) for attempt in attempts]
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

    def last_started(self, figures: Figures) -> Entry | None:
        """The attempt that runs, or that ran last and has not been told to have ended."""
        at = figures.started - self.ended - 1
        return self.entries[at] if 0 <= at < len(self.entries) else None

    def held(self) -> list[Key]:
        """The attempts whose end or return has not been told yet."""
        return [*(entry.key for entry in self.entries), *self.untold, *self.not_started]

    def waiting(self, figures: Figures) -> list[Entry]:
        """What has not started."""
        return self.entries[max(0, figures.started - self.ended) :]
