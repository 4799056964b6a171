"""Effect: delivers events that have become durable to the components that subscribe to them."""

from __future__ import annotations

import logging
from typing import Protocol

from runner.jobs.event import Event
from runner.jobs.job import Job

log = logging.getLogger(__name__)

#: The topic that holds the events of all jobs; every other topic is the id of a job.
ALL_JOBS = "*"


class EventSubscriber(Protocol):
    """A component that handles durable events."""

    def on_events(self, job: Job, events: list[Event]) -> None:
        """Handle new events of one job, at least one, in the order of their sequence numbers.

        Called on the event loop after the commit that holds them and before the callbacks of that commit.
        """


class DurableEvents:
    """Subscriptions to durable events, by topic.

    Every commit is published once. A subscriber that raises is logged and costs the others nothing.
    """

    def __init__(self) -> None:
        self._subscribers: dict[str, list[EventSubscriber]] = {}

    def subscribe(self, topic: str, subscriber: EventSubscriber) -> None:
        """Deliver the events of a job, or of ALL_JOBS, from the next commit on; once per subscriber."""
        subscribers = self._subscribers.setdefault(topic, [])
        if subscriber not in subscribers:
            subscribers.append(subscriber)

    def unsubscribe(self, topic: str, subscriber: EventSubscriber) -> None:
        """Deliver no more events of a topic; one that is not subscribed is ignored."""
        subscribers = self._subscribers.get(topic, [])
        if subscriber in subscribers:
            subscribers.remove(subscriber)
            if not subscribers:
                del self._subscribers[topic]

    def is_job_watched(self, job_id: str) -> bool:
        """Return whether someone follows this very job, so that its events should be committed at once."""
        return job_id in self._subscribers

    def publish(self, job: Job, events: list[Event]) -> None:
        """Deliver new durable events of a job."""
        for topic in (job.id, ALL_JOBS):
            # A copy: subscribers may end their subscription when they see the last event.
            for subscriber in tuple(self._subscribers.get(topic, ())):
                try:
                    subscriber.on_events(job, events)
                except Exception:
                    log.exception("failed to deliver the events of job %s", job.id)
