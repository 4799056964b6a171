"""Effect: events as plain lines."""

from __future__ import annotations

import io
from typing import Any

from runner.cli.progress_display import BarDisplay, LineDisplay
from runner.client.events import JobEvent, parse_event
from tests.runner.client.fake_server import ID


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _event(kind: str, **data: Any) -> JobEvent:
    return parse_event(kind, data, 1, ID)


def _progress(done: int) -> JobEvent:
    return _event("progress", done=done, total=10, fraction=done / 10)


def test_progress_comes_now_and_then_and_the_last_one_always() -> None:
    clock, stream = Clock(), io.StringIO()
    with LineDisplay(stream, clock) as lines:
        for done in range(1, 11):
            lines.show(_progress(done))
            clock.now += 0.4
        lines.show(_event("done", state="succeeded"))
    assert stream.getvalue().splitlines() == [
        "10%  1/10",
        "40%  4/10",
        "70%  7/10",
        "100%  10/10",
        "succeeded",
    ]


def test_logs_and_chunks_come_as_they_are_without_control_characters() -> None:
    stream = io.StringIO()
    with LineDisplay(stream, Clock()) as lines:
        lines.show(_event("status", state="queued", reason="waiting_for_memory", attempt=0))
        lines.show(_event("log", stream="stdout", level=None, text="a\x1b[2Jb\n"))
        lines.show(_event("output", chunk={"word": "c"}))
    assert stream.getvalue().splitlines() == [
        "waiting for memory",
        "a\N{REPLACEMENT CHARACTER}[2Jb",
        "{'word': 'c'}",
    ]


def _retried(left: int, delay_s: float = 0.9) -> JobEvent:
    at, ready_at = "2026-01-31T09:05:00.000Z", f"2026-01-31T09:05:0{delay_s:.3f}Z"
    error = {"code": "timeout", "message": "timed out after 2 s", "retryable": True}
    fields = {"state": "queued", "reason": "retry_backoff", "attempt": 1, "ready_at": ready_at}
    return _event("status", at=at, error=error, retries_left=left, **fields)


def test_a_failed_attempt_is_a_line_that_names_the_error_and_the_retry() -> None:
    stream = io.StringIO()
    with LineDisplay(stream, Clock()) as lines:
        lines.show(_retried(1))
        lines.show(_retried(2, 0.0))
    assert stream.getvalue().splitlines() == [
        "attempt 1 failed: timed out after 2 s; retrying in 0.9 s (1 retry left)",
        "attempt 1 failed: timed out after 2 s; retrying (2 retries left)",
    ]


def test_a_bar_shows_a_failed_attempt_above_it() -> None:
    stream = io.StringIO()
    with BarDisplay("paint", stream) as bar:
        bar.show(_retried(1))
    assert "attempt 1 failed: timed out after 2 s; retrying in 0.9 s" in stream.getvalue()


def _waiting(reason: str, position: int | None, message: str) -> JobEvent:
    return _event("waiting", reason=reason, position=position, message=message, eta_s=None)


def test_a_wait_is_a_line_for_each_reason_and_position_not_for_each_second() -> None:
    stream = io.StringIO()
    with LineDisplay(stream, Clock()) as lines:
        lines.show(_waiting("waiting_for_memory", 2, "waiting for memory, 2nd, about 10 s"))
        lines.show(_waiting("waiting_for_memory", 2, "waiting for memory, 2nd, about 9 s"))
        lines.show(_waiting("waiting_for_memory", 1, "waiting for memory, 1st, about 5 s"))
        lines.show(_waiting("ready", 1, "ready to start, 1st"))
        lines.show(_retried(1))
        lines.show(
            _waiting("retry_backoff", None, "attempt 1 failed: timed out after 2 s; retry in about 1 s")
        )
        lines.show(_waiting("paused", None, "the queue is paused"))
    assert stream.getvalue().splitlines() == [
        "waiting for memory, 2nd, about 10 s",
        "waiting for memory, 1st, about 5 s",
        "attempt 1 failed: timed out after 2 s; retrying in 0.9 s (1 retry left)",
        "the queue is paused",
    ]


def test_a_bar_shows_how_the_job_waits() -> None:
    stream = io.StringIO()
    with BarDisplay("paint", stream) as bar:
        bar.show(_waiting("waiting_for_memory", 2, "waiting for memory, 2nd, about 10 s"))
    assert "waiting for memory, 2nd" in stream.getvalue()


def test_a_bar_begins_anew_when_the_job_is_retried() -> None:
    stream = io.StringIO()
    with BarDisplay("paint", stream) as bar:
        bar.show(_progress(10))
        bar.show(_event("done", state="failed"))
        bar.show(_event("status", state="queued", reason="ready", attempt=1))
        bar.show(_progress(3))
    assert "3/10" in stream.getvalue().splitlines()[-1]


def test_streamed_text_is_one_text_and_counts_as_shown() -> None:
    stream = io.StringIO()
    with BarDisplay("chat", stream) as bar:
        bar.show(_event("output", chunk="Hello"))
        bar.show(_event("output", chunk=", \x1bworld"))
        bar.show(_event("log", stream="stdout", level=None, text="beside it"))
        bar.show(_event("output", chunk="!\n"))
        bar.show(_event("done", state="succeeded"))
        assert bar.has_shown(["Hello", ", \x1bworld", "!\n"]) and bar.has_shown("Hello, \x1bworld!\n")
        assert not bar.has_shown(["Hello"]) and not bar.has_shown([])
    assert "Hello, \N{REPLACEMENT CHARACTER}world\nbeside it\n!\n" in stream.getvalue()


def test_nothing_counts_as_shown_before_text_was_streamed() -> None:
    stream = io.StringIO()
    with BarDisplay("chat", stream) as bar, LineDisplay(stream, Clock()) as lines:
        assert not bar.has_shown([]) and not bar.has_shown("")
        lines.show(_event("output", chunk="Hello"))
        assert not lines.has_shown(["Hello"])
