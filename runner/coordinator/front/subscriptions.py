"""Effect: sends fronts the durable events of the jobs that their clients follow."""

from __future__ import annotations

from typing import Protocol

from runner.coordinator.processes.front_pool import FrontHandle
from runner.coordinator.storage.durable_events import DurableEvents
from runner.jobs.event import Event
from runner.jobs.job import ENDED, Job
from runner.protocol.front import JobEvents, encode


class SubscriptionObserver(Protocol):
    """A component that follows which jobs have readers, and their events."""

    def on_subscribed(self, job_id: str) -> None:
        """Handle the first subscription to a job."""

    def on_unsubscribed(self, job_id: str) -> None:
        """Handle the end of the last subscription to a job."""

    def on_events(self, job: Job) -> None:
        """Handle new durable events of a subscribed job, after they were sent."""


class Subscriptions:
    """Subscriptions of fronts. Each front gets an event once, however many clients follow the job there.

    Only events that are durable are sent. A front reads older events with `ReadEvents`, from its cursor.
    """

    def __init__(self, durable_events: DurableEvents) -> None:
        self._durable_events = durable_events
        self._fronts_by_job: dict[str, set[FrontHandle]] = {}
        self._observer: SubscriptionObserver | None = None

    def connect(self, observer: SubscriptionObserver) -> None:
        """Set the component that follows the subscriptions."""
        self._observer = observer

    def subscribe(self, front: FrontHandle, job_id: str) -> None:
        """Send the front the events of a job from now on."""
        front.subscribed_jobs.add(job_id)
        readers = self._fronts_by_job.setdefault(job_id, set())
        is_first = not readers
        readers.add(front)
        self._durable_events.subscribe(job_id, self)
        if is_first and self._observer is not None:
            self._observer.on_subscribed(job_id)

    def unsubscribe(self, front: FrontHandle, job_id: str) -> None:
        """Stop sending the front a job's events: its last reader has left."""
        front.subscribed_jobs.discard(job_id)
        readers = self._fronts_by_job.get(job_id)
        if readers is not None:
            readers.discard(front)
            if not readers:
                del self._fronts_by_job[job_id]
                self._durable_events.unsubscribe(job_id, self)
                if self._observer is not None:
                    self._observer.on_unsubscribed(job_id)

    def remove_front(self, front: FrontHandle) -> None:
        """Drop all subscriptions of a front that has ended."""
        for job_id in list(front.subscribed_jobs):
            self.unsubscribe(front, job_id)

    def on_events(self, job: Job, events: list[Event]) -> None:
        """Send events that have just become durable to the fronts that follow their job."""
        is_job_ended = job.state in ENDED and events[-1].seq == job.last_seq
        message = encode(
            JobEvents(job.id, [(event.seq, event.type, event.data) for event in events], is_job_ended)
        )
        self.send(job.id, message)
        if self._observer is not None:
            self._observer.on_events(job)

    def send(self, job_id: str, message: bytes) -> None:
        """Send an encoded message to the fronts that follow a job."""
        for front in self._fronts_by_job[job_id]:
            # A front that does not read is sent nothing: the gap in the sequence makes it read from its
            # cursor.
            if front.accepts_events():
                front.send(message)
