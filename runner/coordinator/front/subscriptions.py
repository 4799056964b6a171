"""Effect: which front subscribes to which job; sends each front the new durable events of its jobs."""

from __future__ import annotations

from runner.coordinator.processes.front_pool import FrontHandle
from runner.jobs.event import Event
from runner.jobs.job import ENDED, Job
from runner.protocol.front import JobEvents, encode


class Subscriptions:
    """Subscriptions to event logs. An event is sent once to a front, however many clients read it there."""

    def __init__(self) -> None:
        self._fronts_by_job: dict[str, set[FrontHandle]] = {}

    def subscribe(self, front: FrontHandle, job_id: str) -> None:
        """Send the front the events of a job from now on."""
        front.subscribed_jobs.add(job_id)
        self._fronts_by_job.setdefault(job_id, set()).add(front)

    def unsubscribe(self, front: FrontHandle, job_id: str) -> None:
        """Stop sending the front a job's events: its last reader has left."""
        front.subscribed_jobs.discard(job_id)
        readers = self._fronts_by_job.get(job_id)
        if readers is not None:
            readers.discard(front)
            if not readers:
                del self._fronts_by_job[job_id]

    def remove_front(self, front: FrontHandle) -> None:
        """Drop all subscriptions of a front that has ended."""
        for job_id in list(front.subscribed_jobs):
            self.unsubscribe(front, job_id)

    def has_subscribers(self, job_id: str) -> bool:
        """Whether any front reads this job's events now."""
        return job_id in self._fronts_by_job

    def publish(self, job: Job, events: list[Event]) -> None:
        """Send durable events to the subscribed fronts."""
        fronts = self._fronts_by_job.get(job.id)
        if not fronts:
            return
        is_job_ended = job.state in ENDED and events[-1].seq == job.last_seq
        message = encode(
            JobEvents(job.id, [(event.seq, event.type, event.data) for event in events], is_job_ended)
        )
        for front in fronts:
            # A front that does not read is sent nothing: the gap in the sequence makes it read from its
            # cursor.
            if front.accepts_events():
                front.send(message)
