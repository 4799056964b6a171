"""Pure: the attempts assigned to one executor, in its order: ended, running and not started."""

from __future__ import annotations

from collections import deque

from runner.protocol.worker import AttemptSpec
from runner.worker.processes.page_figures import PageFigures

AttemptKey = tuple[str, int]
#: Messages kept for the tail of standard error; one has some hundred KiB at most, and usually one event.
EVENT_MESSAGES_KEPT = 4


class AssignedAttempt:
    """One attempt assigned to an executor, and what its worker knows about it."""

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
        #: All attempts of its batch, itself included; empty without a batch.
        self.batch: list[AssignedAttempt] = []
        #: In an executor with slots: when its code started (monotonic), and its index in the shared page.
        self.started_mono: float | None = None
        self.slot_index = 0
        #: Its `AttemptEnded` was sent: no message may follow.
        self.is_end_sent = False
        #: The attempt waited while this executor loaded.
        self.waited_for_load = False
        #: Its `AttemptStarted` was sent.
        self.is_start_sent = False
        #: Bytes of descriptor output sent as log events so far.
        self.log_bytes = 0
        self.log_lines = 0
        #: Its latest encoded `AttemptEvents`, for the report of a crash.
        self.event_messages: deque[bytes] = deque(maxlen=EVENT_MESSAGES_KEPT)
        #: Markers still expected in its output pipes: stream name -> marker.
        self.markers: dict[str, bytes] = {}
        #: Highest memory use seen during the attempt.
        self.peak_bytes: int | None = None
        #: Number of its last message sent, and how many of its messages the worker itself made.
        self.seq = 0
        self.own_messages = 0
        #: Its encoded `AttemptEnded`, withheld until the markers are read or this monotonic time.
        self.result: bytes | None = None
        self.release_at = 0.0


class AttemptQueue:
    """Attempts in the executor's order, started ones first.

    The ordinal of an attempt is the page's count of starts after its own start. If attempts run concurrently
    they end in any order, and an ordinal means nothing once the attempt has started.
    """

    def __init__(self, *, is_batched: bool = False, slots: int = 1) -> None:
        self.is_batched = is_batched
        self.slots = slots
        self.entries: list[AssignedAttempt] = []
        #: Number of attempts that have started and ended.
        self.ended_count = 0
        #: Ended attempts whose result waits for their output.
        self.withheld: list[AttemptKey] = []
        #: Attempts assigned too late, or after one that died; reported when the executor is gone.
        self.not_started: list[AttemptKey] = []

    def assign(self, attempts: list[AttemptSpec]) -> list[AssignedAttempt]:
        """Append attempts; if the handler takes batches they form one batch."""
        added = [AssignedAttempt(attempt) for attempt in attempts]
        if self.is_batched:
            for entry in added:
                entry.batch = added
        self.entries.extend(added)
        return added

    def counts(self) -> tuple[int, int]:
        """Return how many attempts have ended, and how many of those not returned were assigned."""
        return self.ended_count, self.ended_count + len(self.entries)

    def ordinal_of(self, entry: AssignedAttempt) -> int:
        """Return the count of starts that the page shows once this attempt has started."""
        return self.ended_count + self.entries.index(entry) + 1

    def find(self, key: AttemptKey) -> AssignedAttempt | None:
        """Return an attempt that has not ended; None for any other."""
        for entry in self.entries:
            if entry.key == key:
                return entry
        return None

    def remove_ended(self, entry: AssignedAttempt) -> None:
        """Remove an attempt that has started and ended."""
        self.entries.remove(entry)
        self.ended_count += 1

    def remove_unstarted(self, entry: AssignedAttempt) -> None:
        """Remove an attempt that will not start; the ordinals after it decrease."""
        self.entries.remove(entry)

    def last_started(self, figures: PageFigures) -> AssignedAttempt | None:
        """Return the running attempt, or the last one to run whose end has not been reported."""
        index = figures.started - self.ended_count - 1
        return self.entries[index] if 0 <= index < len(self.entries) else None

    def running(self, figures: PageFigures) -> list[AssignedAttempt]:
        """Return `last_started` and all attempts that started with it or run concurrently."""
        # A handler may overwrite the page, so its figures can be wrong: what was reported as started has.
        count = min(max(figures.started - self.ended_count, 0), len(self.entries))
        while count < len(self.entries) and self.entries[count].is_start_sent:
            count += 1
        if count == 0:
            return []
        return self.entries[:count] if self.slots > 1 else self.batch_of(self.entries[count - 1])

    def batch_of(self, entry: AssignedAttempt) -> list[AssignedAttempt]:
        """Return the attempts of its batch that have not ended, itself included."""
        if not entry.batch:
            return [entry]
        return [one for one in self.entries if one.batch is entry.batch]

    def first_batch_size(self) -> int:
        """Return how many attempts start together next: more than one for a batch."""
        return len(self.batch_of(self.entries[0])) if self.entries else 1

    def unreported_attempts(self) -> list[AttemptKey]:
        """Return the attempts whose end or return has not been reported."""
        return [*(entry.key for entry in self.entries), *self.withheld, *self.not_started]

    def unstarted_attempts(self, figures: PageFigures) -> list[AssignedAttempt]:
        """Return the attempts that have not started."""
        return self.entries[max(0, figures.started - self.ended_count) :]
