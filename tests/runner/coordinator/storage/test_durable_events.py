"""Durable events: delivered by topic, to each subscriber once, whatever the others do."""

from __future__ import annotations

import logging

import pytest

from runner.coordinator.storage.durable_events import ALL_JOBS, DurableEvents
from runner.jobs.event import Event
from runner.jobs.job import Job, JobTerms


class Recorder:
    """Keeps what it was delivered."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def on_events(self, job: Job, events: list[Event]) -> None:
        self.seen += [(job.id, event.seq) for event in events]


class Failing(Recorder):
    """Fails at each delivery."""

    def on_events(self, job: Job, events: list[Event]) -> None:
        super().on_events(job, events)
        raise RuntimeError("a subscriber's own fault")


class Leaving(Recorder):
    """Ends its own subscription when it is delivered the first event."""

    def __init__(self, durable_events: DurableEvents) -> None:
        super().__init__()
        self._durable_events = durable_events

    def on_events(self, job: Job, events: list[Event]) -> None:
        super().on_events(job, events)
        self._durable_events.unsubscribe(job.id, self)


def make_job(job_id: str) -> Job:
    return Job(1, job_id, "h", "default", 50, 0.0, JobTerms(), 2)


def make_event(seq: int) -> Event:
    return Event(seq, "status", b"{}")


def test_a_topic_is_one_job_or_all_of_them() -> None:
    durable_events, one, every = DurableEvents(), Recorder(), Recorder()
    durable_events.subscribe("a", one)
    durable_events.subscribe(ALL_JOBS, every)
    durable_events.publish(make_job("a"), [make_event(1), make_event(2)])
    durable_events.publish(make_job("b"), [make_event(1)])
    assert one.seen == [("a", 1), ("a", 2)]
    assert every.seen == [("a", 1), ("a", 2), ("b", 1)]


def test_subscribing_twice_delivers_once_and_ending_it_delivers_nothing() -> None:
    durable_events, one = DurableEvents(), Recorder()
    durable_events.subscribe("a", one)
    durable_events.subscribe("a", one)
    durable_events.publish(make_job("a"), [make_event(1)])
    durable_events.unsubscribe("a", one)
    durable_events.unsubscribe("a", one)
    durable_events.unsubscribe("unknown", one)
    durable_events.publish(make_job("a"), [make_event(2)])
    assert one.seen == [("a", 1)]


def test_a_job_is_watched_only_while_it_is_a_topic_itself() -> None:
    durable_events, one = DurableEvents(), Recorder()
    durable_events.subscribe(ALL_JOBS, one)
    assert not durable_events.is_job_watched("a")
    durable_events.subscribe("a", one)
    assert durable_events.is_job_watched("a")
    durable_events.unsubscribe("a", one)
    assert not durable_events.is_job_watched("a")


def test_a_failing_subscriber_is_logged_and_the_others_are_served(caplog: pytest.LogCaptureFixture) -> None:
    durable_events, failing, other = DurableEvents(), Failing(), Recorder()
    durable_events.subscribe("a", failing)
    durable_events.subscribe("a", other)
    with caplog.at_level(logging.ERROR):
        durable_events.publish(make_job("a"), [make_event(1)])
    assert failing.seen == other.seen == [("a", 1)]
    assert "failed to deliver the events of job a" in caplog.text
    assert "a subscriber's own fault" in caplog.text


def test_a_subscriber_that_leaves_during_a_delivery_takes_nothing_from_the_next_one() -> None:
    durable_events = DurableEvents()
    leaving, other = Leaving(durable_events), Recorder()
    durable_events.subscribe("a", leaving)
    durable_events.subscribe("a", other)
    durable_events.publish(make_job("a"), [make_event(1)])
    durable_events.publish(make_job("a"), [make_event(2)])
    assert leaving.seen == [("a", 1)]
    assert other.seen == [("a", 1), ("a", 2)]
