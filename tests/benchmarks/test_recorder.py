"""Effect: what was recorded of calls is what the judge reads of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.soak.judge.history import History, StreamEvent, View, read_history
from benchmarks.soak.judge.verdict import judge
from benchmarks.soak.recorder import HistoryRecorder, SseEvent, parse_sse


def _job(state: str, attempt: int, **more: Any) -> dict[str, Any]:
    return {
        "id": "a",
        "tags": ["tag-a"],
        "state": state,
        "attempt": attempt,
        "error": None,
        "output": None,
        **more,
    }


def _body(document: object) -> bytes:
    return json.dumps(document).encode()


def _read(recorder: HistoryRecorder) -> History:
    recorder.close()
    with recorder.path.open() as lines:
        return read_history(lines)


def test_calls_are_read_as_they_were_recorded(tmp_path: Path) -> None:
    recorder = HistoryRecorder(tmp_path / "history.jsonl")
    output = {"key": "tag-a", "job": "a", "attempt": 1}
    ended = _job("succeeded", 1, output=[output, output])
    error = {"code": "cancelled", "message": "m"}
    recorder.record_request("POST", "/v1/jobs", {"tags": ["tag-a"]}, 1.0, 202, _body(_job("queued", 0)))
    recorder.record_request("POST", "/v1/jobs", {"tags": ["tag-lost"]}, 1.0, None, b"")
    recorder.record_request("GET", "/v1/jobs/a", None, 2.0, 200, _body(ended))
    recorder.record_request("GET", "/v1/jobs/a/explain", None, 2.1, 200, b"{}")
    recorder.record_request("GET", "/v1/jobs?limit=5", None, 2.2, 200, _body({"data": [ended]}))
    recorder.record_request("GET", "/v1/jobs?limit=5", None, 2.3, 503, b"{}")
    told = {"attempt": 1, "started_at": "T1", "ended_at": None}
    recorder.record_request("GET", "/v1/jobs/a/attempts", None, 2.4, 200, _body({"data": [told]}))
    cancelled = _job("cancelled", 1, error=error)
    recorder.record_request("POST", "/v1/jobs/a/cancel", {}, 2.5, 200, _body(cancelled))
    recorder.record_request("DELETE", "/v1/jobs/a", None, 2.6, 204, b"")
    recorder.record_request("POST", "/v1/queues/red/pause", None, 2.7, 200, b"{}")
    history = _read(recorder)

    first, lost = history.submits
    assert (first.job, first.status, first.view) == ("a", 202, View("a", "tag-a", "queued", 0))
    assert (lost.tag, lost.status, lost.is_unsure) == ("tag-lost", None, True)
    job = history.job("a")
    assert [(call.kind, call.status) for call in job.calls] == [
        ("get", 200), ("attempts", 200), ("cancel", 200), ("delete", 204),
    ]  # fmt: skip
    seen = job.calls[0].view
    assert seen is not None and seen.parts == (("tag-a", "a", 1),) and seen.digest
    assert job.calls[1].attempts == ((1, "T1", None),)
    assert job.calls[2].view == View("a", "tag-a", "cancelled", 1, "cancelled")
    assert [(call.status, call.views) for call in history.lists] == [(200, (seen,)), (503, ())]
    assert all(call.end > call.start for call in job.calls)


def test_each_job_of_a_bulk_is_a_submit(tmp_path: Path) -> None:
    recorder = HistoryRecorder(tmp_path / "history.jsonl")
    jobs = {"jobs": [{"tags": [tag]} for tag in ("tag-a", "tag-b")]}
    recorder.record_request(
        "POST", "/v1/jobs/bulk", jobs, 1.0, 202, _body({"jobs": [{"id": "a"}, {"status": 422}]})
    )
    recorder.record_request("POST", "/v1/jobs/bulk", jobs, 2.0, None, b"")
    submits = [(call.tag, call.status, call.job) for call in _read(recorder).submits]
    assert submits == [("tag-a", 202, "a"), ("tag-b", 422, ""), ("tag-a", None, ""), ("tag-b", None, "")]


def test_streams_executions_and_faults_are_read_as_they_were_recorded(tmp_path: Path) -> None:
    recorder = HistoryRecorder(tmp_path / "history.jsonl")
    events = [
        SseEvent("snapshot", None, b"{}"),
        SseEvent("gap", None, b'{"from": 1, "to": 2}'),
        SseEvent("log", 3, b"{}"),
    ]
    recorder.record_stream("/v1/jobs/a/events", 0, 1.0, 200, "cut", events)
    recorder.record_execution("a", 1, 1.0, None, 0.5)
    recorder.record_fault("kill worker", 1.0)
    recorder.record_complete()
    history = _read(recorder)
    (stream,) = history.job("a").streams
    _, gap, log = stream.events
    assert (stream.after, stream.status, stream.how, stream.ids) == (0, 200, "cut", [3])
    assert (gap.name, gap.facts) == ("gap", {"from": 1, "to": 2})
    assert log == StreamEvent("log", 3, log.digest, {})
    assert [(each.attempt, each.end) for each in history.job("a").executions] == [(1, None)]
    assert [fault.what for fault in history.faults] == ["kill worker"] and history.is_complete
    assert judge(history).wrong == []


def test_events_are_taken_off_the_buffer_as_they_are_whole() -> None:
    buffer = bytearray(b'retry: 2000\n\nevent: log\nid: 7\ndata: {"a": 1}\n\n: ping\n\nevent: do')
    assert parse_sse(buffer) == [SseEvent("log", 7, b'{"a": 1}')]
    buffer += b"ne\ndata: {}\n\n"
    assert parse_sse(buffer) == [SseEvent("done", None, b"{}")]
    assert not buffer
