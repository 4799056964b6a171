"""Effect: sends fronts the durable events of the jobs that their clients follow."""

from __future__ import annotations

from runner.coordinator.processes.front_pool import FrontHandle
from runner.coordinator.storage.durable_events import DurableEvents
from runner.jobs.event import Event
from runner.jobs.job import ENDED, Job
from runner.protocol.front import JobEvents, encode


class Subscriptions:
    """Subscriptions of fronts. Each front gets an event once, however many clients follow the job there.

    Only events that are durable are sent. A front reads older events with `ReadEvents`, from its cursor.
    """

    def __init__(self, durable_events: DurableEvents) -> None:
        self._durable_events = durable_events
        self._fronts_by_job: dict[str, set[FrontHandle]] = {}

    def subscribe(self, front: FrontHandle, job_id: str) -> None:
        """Send the front the events of a job from now on."""
        front.subscribed_jobs.add(job_id)
        self._fronts_by_job.setdefault(job_id, set()).add(front)
        self._durable_events.subscribe(job_id, self)

    def unsubscribe(self, front: FrontHandle, job_id: str) -> None:
        """Stop sending the front a job's events: its last reader has left."""
        front.subscribed_jobs.discard(job_id)
        readers = self._fronts_by_job.get(job_id)
        if readers is not None:
            readers.discard(front)
            if not readers:
                del self._fronts_by_job[job_id]
                self._durable_events.unsubscribe(job_id, self)

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
        for front in self._fronts_by_job[job.id]:
            # A front that does not read is sent nothing: the gap in the sequence makes it read from its
            # cursor.
            if front.accepts_events():
                front.send(message)
