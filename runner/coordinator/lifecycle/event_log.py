"""Effect: appends events of jobs to the journal: at once where they are read, and bounded in number."""

from __future__ import annotations

from runner.coordinator.storage.durable_events import DurableEvents
from runner.coordinator.storage.journal import Journal
from runner.jobs.event import EventType
from runner.jobs.job import Job


class EventLog:
    """Appends events to the logs of jobs; `events_kept` is the number of events that a job keeps.

    An event becomes durable with the next commit, which is requested at once if a client follows the job.
    """

    def __init__(self, journal: Journal, *, durable_events: DurableEvents, events_kept: int) -> None:
        self._journal = journal
        self._durable_events = durable_events
        self._events_kept = events_kept

    def append(self, job: Job, kind: EventType, at: float, fields: bytes) -> None:
        """Append an event; `at` is in UTC epoch seconds, `fields` the text of a JSON object."""
        self._journal.add_event(job, kind, at, fields)
        if self._durable_events.is_job_watched(job.id):
            self._journal.commit_soon()

    def append_from_worker(self, job: Job, kind: str, at: float, fields: bytes) -> None:
        """Append an event of the running attempt, and trim the oldest ones if there are too many.

        Progress is also stored in the job itself.
        """
        event_type: EventType = kind  # type: ignore[assignment]  # the worker sends only known ones
        if event_type == "progress":
            job.progress = fields
        self.append(job, event_type, at, fields)
        # Retention trims in steps of a tenth, so that not every event of a stream trims.
        kept = job.last_seq - job.first_seq
        if kept > self._events_kept + self._events_kept // 10:
            self._journal.trim(job, job.last_seq - self._events_kept + 1)
