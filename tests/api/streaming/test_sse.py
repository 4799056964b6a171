"""Server-sent events over real HTTP: nothing lost, nothing twice, nobody in the way."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.api.fake_coordinator import FakeJob, RunningFront, running_front

Event = tuple[str | None, str | None, Any]


def parse(lines: Iterator[str]) -> Iterator[Event]:
    """(id, name, data) of each event."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if not fields:
            continue
        data = fields.get("data")
        yield fields.get("id"), fields.get("event"), None if data is None else json.loads(data)
        fields.clear()


def stream(http: httpx2.Client, job: FakeJob, query: str = "", **headers: str) -> list[Event]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with http.stream("GET", f"/v1/jobs/{job.id}/events{query}", headers=named) as answer:
        assert answer.status_code == 200
        return list(parse(answer.iter_lines()))


def ids(events: list[Event]) -> list[int]:
    return [int(event[0]) for event in events if event[0] is not None]


def ended(front: RunningFront, events: int = 5) -> FakeJob:
    job = front.fake.new()
    front.fake.emit_many(job, events)
    front.fake.finish(job)
    return job


def test_a_stream_begins_with_the_retry_hint_and_the_job(http: httpx2.Client, front: RunningFront) -> None:
    job = ended(front, 2)
    with http.stream("GET", f"/v1/jobs/{job.id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    assert text.startswith("retry: 2000\nevent: snapshot\ndata: {")
    found = list(parse(iter(text.split("\n"))))
    assert found[0][:2] == (None, "snapshot") and found[0][2]["id"] == job.id
    assert [event[:2] for event in found[1:]] == [("1", "progress"), ("2", "progress"), ("3", "done")]


def test_the_job_and_live_events_follow_each_other(http: httpx2.Client, front: RunningFront) -> None:
    job = front.fake.new()
    front.fake.emit(job, "status", state="queued")
    with http.stream("GET", f"/v1/jobs/{job.id}/events") as answer:
        events = parse(answer.iter_lines())
        assert [next(events)[1] for _ in range(2)] == ["snapshot", "status"]
        front.fake.emit(job, "output", chunk="a\nb")
        assert next(events) == ("2", "output", {"job_id": job.id, "seq": 2, "at": "now", "chunk": "a\nb"})
        front.fake.finish(job)
        assert [event[1] for event in events] == ["done"]
    front.fake.until(lambda: job.id not in front.fake.watched)


def test_a_queued_job_says_how_it_waits_after_the_replay_and_then_on_a_change(
    http: httpx2.Client, front: RunningFront
) -> None:
    job = front.fake.new()
    front.fake.emit(job, "status", state="queued")
    front.fake.wait(job, 3, 10.0)
    with http.stream("GET", f"/v1/jobs/{job.id}/events") as answer:
        events = parse(answer.iter_lines())
        assert [next(events)[1] for _ in range(2)] == ["snapshot", "status"]
        shown = {"job_id": job.id, "at": "1970-01-01T00:00:00.250Z", "reason": "waiting_for_memory"}
        first = shown | {"message": "waiting for memory, 3", "position": 3, "eta_s": 10.0}
        assert next(events) == (None, "waiting", first)
        # Only the seconds have changed: readers can count down themselves.
        front.fake.wait(job, 3, 9.0)
        front.fake.wait(job, 2)
        second = shown | {"message": "waiting for memory, 2", "position": 2, "eta_s": None}
        assert next(events) == (None, "waiting", second)
        front.fake.emit(job, "status", state="running")
        # It was on its way when the job started.
        assert job.waiting is not None
        front.fake.send(job.waiting)
        front.fake.finish(job)
        assert [event[1] for event in events] == ["status", "done"]


def test_a_reader_that_comes_late_is_told_how_the_job_waits_now(
    http: httpx2.Client, front: RunningFront
) -> None:
    job = front.fake.new()
    front.fake.emit(job, "status", state="queued")
    front.fake.wait(job, 2, 10.0)
    with http.stream("GET", f"/v1/jobs/{job.id}/events") as one:
        first = parse(one.iter_lines())
        assert [next(first)[1] for _ in range(3)] == ["snapshot", "status", "waiting"]
        front.fake.wait(job, 2, 9.0)
        with http.stream("GET", f"/v1/jobs/{job.id}/events") as two:
            second = parse(two.iter_lines())
            assert [next(second)[1] for _ in range(2)] == ["snapshot", "status"]
            assert next(second)[2]["eta_s"] == 9.0
        front.fake.finish(job)
        assert [event[1] for event in first] == ["done"]


@pytest.mark.parametrize(("types", "names"), [("waiting", ["waiting", None]), ("done", ["done", None])])
def test_waiting_is_one_of_the_types(
    http: httpx2.Client, front: RunningFront, types: str, names: list[str]
) -> None:
    job = front.fake.new()
    front.fake.emit(job, "status", state="queued")
    front.fake.wait(job, 2)
    with http.stream("GET", f"/v1/jobs/{job.id}/events?types={types}") as answer:
        events = parse(answer.iter_lines())
        found = [next(events)[1]]
        if types == "waiting":
            found.append(next(events)[1])
        front.fake.finish(job)
        assert [*found, *(event[1] for event in events)] == ["snapshot", *names]


def test_a_stream_from_now_on_leaves_out_what_was_and_can_be_resumed(
    http: httpx2.Client, front: RunningFront
) -> None:
    job = front.fake.new()
    front.fake.emit_many(job, 3)
    with http.stream("GET", f"/v1/jobs/{job.id}/events?after=now") as answer:
        events = parse(answer.iter_lines())
        # The bare id lets a client that is cut off now go on from here.
        assert [next(events)[:2] for _ in range(2)] == [(None, "snapshot"), ("3", None)]
        front.fake.emit(job, "log", text="new")
        assert next(events)[:2] == ("4", "log")
        front.fake.finish(job)
        assert [event[:2] for event in events] == [("5", "done")]
    # A browser that reconnects names its cursor beside the address of before.
    assert ids(stream(http, job, "?after=now", last_event_id="3")) == [4, 5]


def test_a_stream_from_now_on_of_an_ended_job_is_its_snapshot(
    http: httpx2.Client, front: RunningFront
) -> None:
    job = ended(front, 2)
    assert [event[:2] for event in stream(http, job, "?after=now")] == [(None, "snapshot"), ("3", None)]


def test_events_between_watch_and_page_come_once(http: httpx2.Client, front: RunningFront) -> None:
    job = front.fake.new()
    front.fake.emit_many(job, 3)

    def meanwhile(found: FakeJob) -> None:
        front.fake._emit(found, [("log", {}), ("log", {})])
        front.fake._finish(found, "succeeded", b"1")

    front.fake.before_page[job.id] = meanwhile
    assert ids(stream(http, job)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("query", "headers"), [("?after=3", {}), ("", {"last_event_id": "3"})])
def test_a_stream_goes_on_after_the_cursor(
    http: httpx2.Client, front: RunningFront, query: str, headers: dict[str, str]
) -> None:
    assert ids(stream(http, ended(front), query, **headers)) == [4, 5, 6]


def test_what_retention_took_is_a_visible_gap(http: httpx2.Client, front: RunningFront) -> None:
    job = ended(front)
    job.first_seq = 4
    events = stream(http, job, "?after=1")
    gap = next(event for event in events if event[1] == "gap")
    assert gap == (None, "gap", {"job_id": job.id, "from": 2, "to": 3})
    assert ids(events) == [4, 5, 6]


def test_204_only_where_the_job_has_ended_and_all_was_seen(http: httpx2.Client, front: RunningFront) -> None:
    job = ended(front)
    assert http.get(f"/v1/jobs/{job.id}/events?after=6").status_code == 204
    assert ids(stream(http, job, "?after=5")) == [6]
    job.state = "running"
    with http.stream("GET", f"/v1/jobs/{job.id}/events?after=6") as answer:
        assert answer.status_code == 200


def test_only_the_types_asked_for_come_and_the_cursor_still_moves(
    http: httpx2.Client, front: RunningFront
) -> None:
    job = ended(front)
    assert [event[:2] for event in stream(http, job, "?types=done")][1:] == [("6", "done"), ("6", None)]
    last_id = ids(stream(http, job, "?types=log"))[-1]
    assert http.get(f"/v1/jobs/{job.id}/events?types=log&after={last_id}").status_code == 204


def test_a_retried_job_streams_on_after_its_earlier_done(http: httpx2.Client, front: RunningFront) -> None:
    job = ended(front, 1)
    job.state = "queued"
    with http.stream("GET", f"/v1/jobs/{job.id}/events") as answer:
        events = parse(answer.iter_lines())
        assert [next(events)[1] for _ in range(3)] == ["snapshot", "progress", "done"]
        front.fake.emit(job, "status", state="running")
        assert next(events)[0] == "3"
        front.fake.finish(job)
        assert [event[0] for event in events] == ["4"]


@pytest.mark.parametrize("query", ["?after=x", "?after=-1", "?types=error", "?token=x"])
def test_a_bad_question_is_refused_before_a_stream_begins(
    http: httpx2.Client, front: RunningFront, query: str
) -> None:
    answer = http.get(f"/v1/jobs/{ended(front).id}/events{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


def test_a_reader_behind_the_ring_reads_pages(http: httpx2.Client, front: RunningFront) -> None:
    job = front.fake.new()
    with http.stream("GET", f"/v1/jobs/{job.id}/events") as answer:
        events = parse(answer.iter_lines())
        next(events)
        # Four times the ring, in one burst.
        front.fake.emit_many(job, 4000, "x" * 1000)
        front.fake.finish(job)
        assert ids(list(events)) == list(range(1, 4002))


def test_many_readers_share_one_watch(http: httpx2.Client, front: RunningFront) -> None:
    job = front.fake.new()
    sockets = [open_stream(front, job) for _ in range(20)]
    try:
        front.fake.until(
            lambda: sum(getattr(asked, "job_id", "") == job.id for asked in front.fake.asked) == 21
        )
        names = [type(asked).__name__ for asked in front.fake.asked if getattr(asked, "job_id", "") == job.id]
        assert names.count("SubscribeEvents") == 1
        front.fake.emit_many(job, 100)
        front.fake.finish(job)
        for one in sockets:
            assert read_all(one).count(b"\nid: ") == 101
    finally:
        for one in sockets:
            one.close()
    front.fake.until(lambda: job.id not in front.fake.watched)


def test_readers_that_come_late_share_the_pages(front: RunningFront) -> None:
    job = front.fake.new()
    # Sixteen pages; none of these readers takes more than its buffers before it is its turn.
    front.fake.emit_many(job, 2000, "x" * 1000)
    front.fake.finish(job)
    sockets = [open_stream(front, job, small=True) for _ in range(10)]
    try:
        for one in sockets:
            found = [int(line[4:]) for line in read_all(one).split(b"\n") if line.startswith(b"id: ")]
            assert found == list(range(found[0], 2002)) and found[0] < 10
    finally:
        for one in sockets:
            one.close()
    pages = [
        asked for asked in front.fake.asked if type(asked).__name__ == "ReadEvents" and asked.job_id == job.id
    ]
    # Each asks once for the job as it is; the first, who was alone then, turns pages of its own.
    assert len(pages) < 10 + 2 * 20


def test_a_client_that_leaves_ends_its_watch_and_cancels_nothing(front: RunningFront) -> None:
    job = front.fake.new()
    one = open_stream(front, job)
    front.fake.until(lambda: job.id in front.fake.watched)
    one.close()
    front.fake.until(lambda: job.id not in front.fake.watched)
    assert not any(type(asked).__name__ == "Act" and asked.job_id == job.id for asked in front.fake.asked)


def test_a_client_that_leaves_before_it_read_anything_leaks_no_watch(front: RunningFront) -> None:
    job = front.fake.new()
    for _ in range(20):
        open_stream(front, job, read=False).close()
    front.fake.until(lambda: job.id not in front.fake.watched and sum_of(front, job) % 2 == 0)


def sum_of(front: RunningFront, job: FakeJob) -> int:
    return sum(
        type(asked).__name__ in ("SubscribeEvents", "UnsubscribeEvents") and asked.job_id == job.id
        for asked in front.fake.asked
    )


def open_stream(
    front: RunningFront, job: FakeJob, *, read: bool = True, small: bool = False, query: str = ""
) -> socket.socket:
    one = socket.socket()
    if small:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.settimeout(10)
    one.connect(("127.0.0.1", front.port))
    path = f"/v1/jobs/{job.id}/events{query}"
    one.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{front.port}\r\n\r\n".encode())
    if read:
        while b"snapshot" not in one.recv(4096):
            pass
    return one


def read_all(one: socket.socket) -> bytes:
    data = bytearray()
    # With the end of the chunk before: an event may end in a zero, as `retry: 2000` does.
    while not data.endswith(b"\r\n0\r\n\r\n"):
        chunk = one.recv(65536)
        if not chunk:
            break
        data += chunk
    return bytes(data)


def test_a_silent_stream_is_pinged_and_a_lost_last_feed_is_found() -> None:
    with running_front(ping_s=0.2) as front, httpx2.Client(base_url=front.url) as http:
        job = front.fake.new()
        with http.stream("GET", f"/v1/jobs/{job.id}/events") as answer:
            lines = answer.iter_lines()
            while not next(lines).startswith(": ping"):
                pass
            front.fake.feeding = False
            front.fake.finish(job)
            assert [event[0] for event in parse(lines) if event[1] == "done"] == ["1"]


def rss_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096


@pytest.mark.timed
def test_idle_and_stalled_readers_cost_little_and_delay_nobody() -> None:
    with running_front(stream_stall_s=1.0) as front:
        job, idle_job = front.fake.new(), front.fake.new()
        open_stream(front, job).close()
        before = rss_bytes(front.child.pid)
        idle = [open_stream(front, idle_job) for _ in range(300)]
        per_idle = (rss_bytes(front.child.pid) - before) / len(idle)
        before = rss_bytes(front.child.pid)
        stalled = [open_stream(front, job, small=True) for _ in range(20)]
        live = open_stream(front, job)
        try:
            began = time.monotonic()
            delays = [emit_and_see(front, job, live, number) for number in range(150)]
            while time.monotonic() < began + 3 * 1.0:
                delays.append(emit_and_see(front, job, live, len(delays)))
            assert sorted(delays)[-2] < 0.25
            assert rss_bytes(front.child.pid) - before < 20 * 2**20
            assert all(is_cut(one) for one in stalled)
            assert not is_cut(live) and not is_cut(idle[0])
        finally:
            for one in [*idle, *stalled, live]:
                one.close()
        assert per_idle < 60 * 1024


@pytest.mark.timed
@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "live"])
def test_readers_that_never_read_share_a_large_event(is_stored: bool) -> None:
    event_bytes, readers = 8 << 20, 60
    with running_front() as front:
        job = front.fake.new()
        if is_stored:
            front.fake.emit(job, "output", chunk="x" * event_bytes)
        before = rss_bytes(front.child.pid)
        selections = ("", "?types=output", "?types=output,log", "?types=done,output")
        stalled = [open_stream(front, job, small=True, query=selections[n % 4]) for n in range(readers)]
        try:
            if not is_stored:
                front.fake.emit(job, "output", chunk="x" * event_bytes)
            front.fake.finish(job)
            with httpx2.Client(base_url=front.url, timeout=30) as http:
                found = [event for event in stream(http, job) if event[1] == "output"]
            assert [len(event[2]["chunk"]) for event in found] == [event_bytes]
            # The bytes of a frame, of its message and of its event, with what is being sent.
            assert rss_bytes(front.child.pid) - before < 10 * event_bytes
            # A reader that stalled got nothing wrong: it can go on where it stopped.
            text = read_all(stalled[1])
            assert text.count(b"\nid: 1\nevent: output\ndata: ") == 1 and b"ping" not in text
        finally:
            for one in stalled:
                one.close()


def test_a_ping_comes_between_events_never_within_one() -> None:
    with running_front(ping_s=0.05) as front:
        job = front.fake.new()
        front.fake.emit(job, "output", chunk="x" * (4 << 20))
        slow = open_stream(front, job, small=True)
        other = open_stream(front, job)
        try:
            # The other reader is past the event, and is pinged while the slow one stands in the middle.
            seen = b""
            while seen.count(b": ping") < 3:
                seen = seen[-40:] + other.recv(65536) if b": ping" not in seen else seen + other.recv(65536)
            front.fake.finish(job)
            text = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", read_all(slow))
            (data,) = [line for line in text.split(b"\n") if line.startswith(b"data: ") and b"chunk" in line]
            assert len(json.loads(data[6:])["chunk"]) == 4 << 20
        finally:
            slow.close()
            other.close()


def emit_and_see(front: RunningFront, job: FakeJob, live: socket.socket, number: int) -> float:
    mark = b'"mark":%d,' % number
    started = time.perf_counter()
    front.fake.emit(job, "log", mark=number, text="x" * 8000)
    seen = b""
    while mark not in seen:
        seen = seen[-20:] + live.recv(65536)
    return time.perf_counter() - started


def is_cut(one: socket.socket) -> bool:
    """Whether the server gave the connection up; what had come before is dropped."""
    one.settimeout(0.5)
    try:
        while one.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True
