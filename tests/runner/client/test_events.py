"""Pure: streams of events, whole and cut."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.client.events import (
    DoneEvent,
    EventFollower,
    GapEvent,
    JobEvent,
    LogEvent,
    ProgressEvent,
    SnapshotEvent,
    SseParser,
    StatusEvent,
    WaitingEvent,
    parse_event,
)
from runner.client.http_call import HttpResponse
from runner.errors import NoServer, NotFound
from tests.runner.client.fake_server import ID, frame, job

SNAPSHOT = frame("snapshot", **job("running"))
ONE = frame("progress", 1, done=1, total=2, fraction=0.5)
TWO = frame("log", 2, stream="stdout", level=None, text="hi\n")
DONE = frame("done", 3, state="succeeded", output=7, error=None)


def _tail(after: int | None = None, *, known: bool = True) -> EventFollower:
    return EventFollower(ID, after=after, known=known)


def _fed(tail: EventFollower, *chunks: bytes) -> list[JobEvent]:
    return [found for chunk in chunks for found in tail.feed(chunk)]


def test_a_stream_reads_the_same_wherever_it_is_cut_into_chunks() -> None:
    text = ONE + b": ping\r\n\r\n" + TWO
    for cut_at in range(len(text)):
        frames = SseParser()
        found = [*frames.feed(text[:cut_at]), *frames.feed(text[cut_at:])]
        assert [(each.name, each.id) for each in found] == [("progress", "1"), ("log", "2")]


def test_events_carry_their_own_fields() -> None:
    progress, log, done = _fed(_tail(), ONE, TWO, DONE)
    assert isinstance(progress, ProgressEvent) and progress.fraction == 0.5
    assert isinstance(log, LogEvent) and log.text == "hi\n"
    assert isinstance(done, DoneEvent) and done.output == 7
    assert progress.at is not None and progress.at.microsecond == 250_000


def test_a_status_of_a_failed_attempt_has_its_error_and_the_delay_of_its_retry() -> None:
    at, error = "2026-01-31T09:05:00.250Z", {"code": "timeout", "message": "late", "retryable": True}
    data = {"state": "queued", "at": at, "attempt": 1, "error": error, "retries_left": 1}
    found = parse_event("status", data | {"ready_at": "2026-01-31T09:05:01.150Z"}, 4, ID)
    assert isinstance(found, StatusEvent)
    assert (found.error, found.retries_left, found.retry_in_s) == (error, 1, 0.9)
    found = parse_event("status", {"state": "queued", "at": at}, 4, ID)
    assert isinstance(found, StatusEvent) and (found.error, found.retry_in_s) == (None, None)


def test_a_waiting_event_is_typed_and_has_no_number() -> None:
    data: dict[str, Any] = {"reason": "waiting_for_memory", "message": "m", "position": 2, "eta_s": 9.5}
    (found,) = _fed(_tail(), frame("waiting", **data))
    assert isinstance(found, WaitingEvent)
    assert (found.seq, found.reason, found.message) == (None, "waiting_for_memory", "m")
    assert (found.position, found.eta_s) == (2, 9.5)


def test_a_stream_from_now_on_is_resumed_where_it_began() -> None:
    tail = EventFollower(ID, after="now", known=True)
    assert ("after", "now") in tail.open_call().params
    assert [each.type for each in _fed(tail, SNAPSHOT, b"id: 7\n\n")] == ["snapshot"]
    # It is cut off before the first new event.
    tail.on_closed()
    again = tail.open_call()
    assert again.headers["Last-Event-ID"] == "7"
    assert [each.seq for each in _fed(tail, frame("log", 8, text="new"))] == [8]
    assert tail.open_call().headers["Last-Event-ID"] == "8"


def test_a_gap_and_an_unknown_event_are_shown() -> None:
    gap = parse_event("gap", {"from": 3, "to": 9}, None, ID)
    assert isinstance(gap, GapEvent) and (gap.first, gap.last) == (3, 9)
    assert type(parse_event("invented_later", {"job_id": ID}, 4, ID)) is JobEvent


def test_after_a_cut_every_event_comes_once_and_the_snapshot_is_not_told_again() -> None:
    tail = _tail()
    first = _fed(tail, SNAPSHOT, ONE, TWO[:10])
    tail.on_failed(NoServer("gone"), now=1.0)
    assert tail.open_call().headers["Last-Event-ID"] == "1"
    second = _fed(tail, SNAPSHOT, ONE, TWO, DONE)
    assert [type(each) for each in first] == [SnapshotEvent, ProgressEvent]
    assert [each.seq for each in second] == [2, 3]


def test_a_stream_is_over_only_when_it_ends_after_done() -> None:
    tail = _tail()
    _fed(tail, ONE)
    assert tail.on_closed() > 0 and not tail.is_over
    _fed(tail, DONE)
    assert not tail.is_over, "a retried job goes on after an earlier done"
    tail.on_closed()
    assert tail.is_over


def test_the_end_is_heard_of_by_readers_that_did_not_ask_for_done() -> None:
    tail = EventFollower(ID, after=None, types=("log",))
    assert tail.open_call().params == (("types", "log,done"),)
    assert [found.type for found in _fed(tail, TWO, DONE)] == ["log"]
    tail.on_closed()
    assert tail.is_over


def test_204_means_there_is_nothing_more() -> None:
    tail = _tail(after=3)
    assert not tail.on_opened(204)
    assert tail.is_over


def test_a_server_that_was_never_seen_is_not_waited_for() -> None:
    with pytest.raises(NoServer):
        _tail(known=False).on_failed(NoServer("nobody"), now=0.0)


def test_a_server_that_is_gone_is_waited_for_with_growing_pauses_and_a_bound() -> None:
    tail, pauses, now = _tail(), [], 0.0
    with pytest.raises(NoServer):
        while now < 1000:
            pauses.append(tail.on_failed(NoServer("gone"), now))
            now += pauses[-1]
    assert pauses == sorted(pauses) and 30 <= now < 40


def test_unavailable_is_waited_out_and_other_refusals_are_final() -> None:
    headers = {"content-type": "application/problem+json"}
    tail = _tail()
    busy = json.dumps({"code": "shutting_down", "status": 503}).encode()
    assert tail.on_refused(HttpResponse(503, headers, busy), now=0.0) > 0
    missing = json.dumps({"code": "not_found", "status": 404}).encode()
    with pytest.raises(NotFound):
        tail.on_refused(HttpResponse(404, headers, missing), now=0.0)
